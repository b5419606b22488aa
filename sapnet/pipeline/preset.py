"""The preset of a run that was asked for `auto`: chosen once, by the machine that runs it."""

import json
from dataclasses import replace
from pathlib import Path

from sapnet.config import AUTO
from sapnet.config.choice import Choice, choose_preset
from sapnet.config.estimate import Gpu, Machine, Workload
from sapnet.data.annotations.coco import load_points
from sapnet.pipeline import run_directory
from sapnet.pipeline.events import EventSink, PresetChosen
from sapnet.pipeline.spec import RunSpec
from sapnet.proposals.sam.checkpoints import environment_checkpoints
from sapnet.segmenters.importing import read_model
from sapnet.types import PointSet
from sapnet.utils import distributed
from sapnet.utils.backbone_file import body_of_file
from sapnet.utils.device import largest_gpu
from sapnet.utils.files import write_text
from sapnet.utils.speed import cores, relative_speed

NAME = "preset.json"


def with_preset(spec: RunSpec, emit_event: EventSink) -> RunSpec:
    """Put a preset in the place of `auto`; a run that has one stays as it is.

    The work folder remembers it: a run that is started again goes on with the same preset, whatever
    has become of the machine.
    """
    if spec.preset != AUTO:
        return spec
    source = spec.points
    points = source if isinstance(source, PointSet) else load_points(source)
    choice = distributed.main_first(lambda: _remembered(spec, points))
    emit_event(PresetChosen(choice.preset, list(choice.reasons)))
    return replace(spec, points=points, preset=choice.preset)


def _remembered(spec: RunSpec, points: PointSet) -> Choice:
    path = spec.workdir / NAME
    if path.exists():
        stored = json.loads(path.read_text())
        return Choice(stored["preset"], tuple(stored["reasons"]))
    choice = _of_run(spec.workdir / run_directory.NAME) or choose(spec, points)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"preset": choice.preset, "reasons": choice.reasons}
    write_text(path, json.dumps(document, indent=2) + "\n")
    return choice


def _of_run(path: Path) -> Choice | None:
    """The preset of the run that a folder holds, which is older than its choice."""
    preset = json.loads(path.read_text()).get("preset") if path.exists() else None
    return Choice(preset, ("The run of this folder has begun with it.",)) if preset else None


def given_body(spec: RunSpec) -> str | None:
    """The body of the model or the weights that a run starts from; None where it is given none."""
    path = spec.initial_model or spec.backbone_weights
    if path is None:
        return None
    if path.suffix == ".safetensors":
        return str(read_model(path).config.backbone.name)
    return body_of_file(path)


def this_machine() -> Machine:
    """This machine, as torch sees it."""
    gpu = largest_gpu()
    return Machine(cores(), Gpu(*gpu) if gpu else None, relative_speed())


def choose(spec: RunSpec, points: PointSet) -> Choice:
    """Choose a preset for a run on this machine."""
    kind, model_type = str(spec.proposals.get("kind")), spec.proposals.get("model_type")
    initial, weights = spec.initial_model, spec.backbone_weights
    return choose_preset(
        this_machine(),
        Workload.of(points, kind, model_type, has_truth=spec.truth is not None),
        weights_body=body_of_file(weights) if weights else None,
        model=read_model(initial).meta["config"] if initial else None,
        sam=list(environment_checkpoints()),
    )
