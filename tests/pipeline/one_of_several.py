"""One process of some trainings, one after the other, as torchrun would start it: JOB[:TROUBLE]...

Leaves its losses, its weights and the error that ended it beside JOB.json, as JOB.PROCESSES.RANK.
TROUBLE comes to the last process alone, after two steps: "stop", "number" or "disk".
"""

import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from sapnet.data import samples as loader
from sapnet.data.annotations.coco import load_points
from sapnet.pipeline import stages
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec
from sapnet.proposals import build_generator
from sapnet.training import loader as batches
from sapnet.training import loop as engine
from sapnet.training.dataset import TrainingSet
from sapnet.training.model import BUILDERS
from sapnet.utils import distributed


def main(path, trouble):
    spec, losses, images = RunSpec.read(path), [], count()
    if distributed.rank() < distributed.processes() - 1:
        trouble = ""

    def load_sample(*asked):
        late = next(images) >= 2  # it takes one a step
        if late and trouble == "disk":
            raise OSError("the disk is gone")
        sample = loader.load_sample(*asked)
        return replace(sample, image=sample.image / 0) if late and trouble == "number" else sample

    batches.load_sample = load_sample
    run = Run(spec, lambda event: None, lambda: trouble == "stop" and len(losses) >= 2)
    points = load_points(spec.points)
    generator = build_generator(spec.proposals, points)
    bags = distributed.main_first(lambda: stages.make_proposals(run.context, generator, points))
    model, _ = stages.make_model(run.context, points.categories, BUILDERS)
    error = None
    try:
        engine.train(
            model,
            TrainingSet(points, spec.image_paths, bags),
            seed=spec.seed,
            checkpoint=spec.workdir / "checkpoint.pt",
            report=lambda step, of, terms: losses.append(terms),
            should_stop=run.context.should_stop,
        )
    except Exception as raised:
        error = type(raised).__name__, str(raised)
    state = {"losses": losses, "weights": model.state_dict(), "error": error}
    torch.save(state, path.with_suffix(f".{distributed.processes()}.{distributed.rank()}"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join()
    distributed.BUCKET = 10_000  # so that a small model takes several
    for argument in sys.argv[1:]:
        name, _, wanted = argument.partition(":")
        main(Path(name), wanted)
