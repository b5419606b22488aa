"""The ladder: what each component of SAPNet++ adds to the selection of masks, on your own data.

    python benchmarks/ladder.py --data DIR [--data DIR] --proposals simulated|hierarchy|sam|...
        [--proposals ...] [--seeds 3] [--json FILE] [--markdown FILE] [--figure FILE]

DIR holds images/, points.json and instances.json (COCO); for `given`, proposals.json too.
`simulated` makes bags as SAM would from the true masks, in two variants. Rows: picks by rule, then
MIL and one component after the other up to sapnet++, then the best of each bag, the ceiling.

The rungs are about selection, so each trains only the pyramid and the MIL branch, over features of
the backbone's body that are computed once an image and stay frozen, at a small input and for a
few hundred steps. `sapnet run` and `make demo` measure the whole product, trained end to end;
--end-to-end runs every rung so, with the preset's own input and schedule: hours on a CPU.
--affinity adds the refinement of flawed masks (benchmarks/affinity.py) to the tables.
"""

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import affinity as affinity_benchmark
import msgspec
import torch
import typer
from ladder_climb import Climb, climb
from ladder_data import KINDS, SIMULATED, DataSet, expanded, freeze
from ladder_figure import chosen
from ladder_report import About, Report

from sapnet.cli.main import parse_overrides
from sapnet.config.presets import bodies_of
from sapnet.config.resolve import resolve_config
from sapnet.utils.backbone_file import body_of_file

BAGS_A_STEP = 8
MANY = 16  # bags a step from which fewer steps do
SMALL: dict[str, Any] = {
    "data.short_sides": [256],
    "data.max_long_side": 448,
    "data.flip": False,
    "train.epochs": 1,
    "train.warmup_steps": 10,
}


@dataclass(frozen=True)
class LadderOptions:
    """The whole benchmark, as the command line gives it. affinity: images of each set, 0 is none.
    work: a folder that is thrown away."""

    folders: list[Path]
    proposals: list[str]
    seeds: int
    preset: str
    overrides: dict[str, Any]
    weights: Path | None
    sam: dict[str, Any]
    end_to_end: bool
    affinity: int
    workers: int
    work: Path

    def features(self, index: int) -> Path:
        return self.work / f"features-{index}.pt"

    def settings(self, data: DataSet) -> dict[str, Any]:
        """The overrides for one dataset: on frozen features, few bags a step and many steps."""
        if self.end_to_end:
            return self.overrides
        mean = len(data.points.annotations) / max(len(data.points.images), 1)
        batch = min(max(round(BAGS_A_STEP / max(mean, 1.0)), 1), 8)
        small = {**SMALL, "train.batch_size": batch, "train.reference_batch": batch}
        small["train.min_steps"] = 300 if batch * mean < MANY else 200
        return {**small, **self.overrides}

    def climbs(self, sets: list[DataSet], shown: int) -> Iterator[Climb]:
        """Everything to be done. shown: objects of each set that the figure wants."""
        for proposals in self.proposals:
            for seed in range(self.seeds):
                for index, data in enumerate(sets):
                    yield Climb(
                        folder=data.folder,
                        proposals=proposals,
                        seed=seed,
                        preset=self.preset,
                        overrides=self.settings(data),
                        weights=self.weights,
                        sam=self.sam,
                        features=None if self.end_to_end else self.features(index),
                        work=self.work,
                        shown=chosen(data, shown) if seed == 0 else (),
                    )


def prepare(options: LadderOptions, index: int) -> str:
    """Features, and the bags that no seed changes, of one dataset. Returns the body's origin."""
    torch.set_num_threads(1)
    data = DataSet.read(options.folders[index])
    config = resolve_config("sapnet++", options.preset, options.settings(data))
    origin = freeze(data, config, options.weights, options.features(index))
    for proposals in options.proposals:
        if proposals not in SIMULATED:
            bags = data.bags(proposals, 0, options.work / "proposals", options.sam)
            deque(bags, maxlen=0)
    return f"{config.backbone.name} ({origin})"


def run(options: LadderOptions, report: Report, shown: int, tell: Callable[[str], None]) -> None:
    """Prepare and climb, in `workers` processes; figures do not depend on how many."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context, max_tasks_per_child=1) as pool:
        report.bodies = list(pool.map(prepare, repeat(options), range(len(options.folders))))
        climbs = {pool.submit(climb, one): one for one in options.climbs(report.sets, shown)}
        refined = [
            pool.submit(
                affinity_benchmark.run, folder, images=options.affinity, weights=options.weights
            )
            for folder in options.folders
            if options.affinity
        ]
        for done, future in enumerate(as_completed(climbs), start=1):
            one = climbs[future]
            report.add(one, future.result())
            tell(f"{done} of {len(climbs)}: {one.folder.name}, {one.proposals}, seed {one.seed}")
        report.affinity = [row for future in refined for row in future.result()]
        report.write()


def main(
    data: Annotated[list[Path], typer.Option(help="folder: images/, points.json, instances.json")],
    proposals: Annotated[list[str], typer.Option(help=", ".join(KINDS))],
    seeds: Annotated[int, typer.Option(help="how many, from 0", min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="keep the rows")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="keep the tables, between two marks of the file")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="draw objects under every method")] = None,
    weights: Annotated[Path | None, typer.Option(help="backbone state dict")] = None,
    preset: str = "cpu",
    override: Annotated[
        list[str] | None, typer.Option(help="of every rung, such as train.min_steps=200")
    ] = None,
    sam: Annotated[str, typer.Option(help="JSON: keywords of SAM's generator")] = "{}",
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="the whole training")] = False,
    affinity: Annotated[int, typer.Option(help="images of each set to refine too")] = 0,
    workers: Annotated[int, typer.Option(help="processes of one thread each", min=1)] = 2,
    shown: Annotated[int, typer.Option(help="objects of each set in the figure")] = 5,
) -> None:
    with tempfile.TemporaryDirectory(prefix="ladder-") as work:
        options = LadderOptions(
            folders=data,
            proposals=expanded(proposals),
            seeds=seeds,
            preset=preset,
            overrides=_given_body(preset, weights) | parse_overrides(override or []),
            weights=weights,
            sam=msgspec.json.decode(sam, type=dict[str, Any]),
            end_to_end=end_to_end,
            affinity=affinity,
            workers=workers,
            work=Path(work),
        )
        sets = [DataSet.read(folder) for folder in data]
        configs = [resolve_config("sapnet++", preset, options.settings(one)) for one in sets]
        about = About(configs, seeds, workers, end_to_end)
        report = Report(sets, options.proposals, about, json, markdown, figure)
        run(options, report, shown if figure else 0, lambda line: typer.echo(line, err=True))
    typer.echo(report.text())


def _given_body(preset: str, weights: Path | None) -> dict[str, Any]:
    """An override of the body, where the weights are of another one that the preset takes."""
    body = body_of_file(weights) if weights else None
    return {"backbone.name": body} if body in bodies_of(preset) else {}


if __name__ == "__main__":
    typer.run(main)
