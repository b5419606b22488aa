"""The ladder: what each component of SAPNet++ adds to the selection of masks, on your own data.

    python benchmarks/ladder.py --data DIR [--data DIR] --proposals simulated|hierarchy|sam|given
        [--proposals ...] [--seeds 3] [--json FILE] [--markdown FILE] [--picture FILE]

DIR holds images/, points.json and instances.json (COCO); for `given`, proposals.json too.
`simulated` makes bags as SAM would from the true masks, in two variants. Rows: picks by rule, then
MIL and one component after the other up to sapnet++, then the best of each bag, the ceiling.

The rungs are about selection, so each trains only the pyramid and the MIL branch, over features of
the backbone's body that are computed once an image and stay frozen, at a small input and for a
hundred steps. `sapnet run` and `make demo` measure the whole product, trained end to end;
--end-to-end runs every rung so, hours on a CPU.
"""

import multiprocessing
import os
import platform
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import torch
import typer
from ladder_climb import Climb, Climbed, climb
from ladder_data import SIMULATED, DataSet, expanded, freeze
from ladder_picture import chosen, draw
from ladder_tables import markdown as as_markdown
from ladder_tables import summary, write_section

from sapnet.cli import parse_overrides
from sapnet.config import resolve_config

Row = dict[str, Any]
BAGS_A_STEP = 16
SMALL: dict[str, Any] = {
    "data.short_sides": [256],
    "data.max_long_side": 448,
    "data.flip": False,
    "train.epochs": 1,
    "train.min_steps": 100,
    "train.warmup_steps": 10,
}
ABOUT = (
    "Each learned rung trains the pyramid and the MIL branch alone, over frozen features of {body}"
    ": it tells what a component adds to selection; the product trains end to end. Rungs are "
    "cumulative; BMS, where the preset leaves it off, is measured and goes again. `step` is the "
    "change from the rung below, seed by seed. Preset `{preset}`, short side {side}, {steps} steps "
    "or more, {seeds} seeds. {seconds:.0f} s in all, {workers} processes of one thread, {machine}, "
    "commit {commit}."
)


@dataclass(frozen=True)
class Asked:
    """The whole benchmark, as the command line gives it."""

    folders: list[Path]
    proposals: list[str]
    seeds: int
    preset: str
    overrides: dict[str, Any]
    weights: Path | None
    sam: dict[str, Any]
    workers: int
    shown: int
    work: Path

    @property
    def store(self) -> Path:
        return self.work / "proposals"

    def features(self, index: int) -> Path:
        return self.work / f"features-{index}.pt"

    def settings(self, data: DataSet) -> dict[str, Any]:
        """The overrides for one data set: about as many bags a step on each."""
        mean = len(data.points.annotations) / max(len(data.points.images), 1)
        batch = min(max(round(BAGS_A_STEP / max(mean, 1.0)), 1), 4)
        return {
            **SMALL,
            "train.batch_size": batch,
            "train.reference_batch": batch,
            **self.overrides,
        }

    def climbs(self, sets: Sequence[DataSet]) -> Iterator[Climb]:
        """Everything to be done."""
        for proposals in self.proposals:
            for seed in range(self.seeds):
                for index, data in enumerate(sets):
                    yield Climb(
                        folder=data.folder,
                        proposals=proposals,
                        seed=seed,
                        preset=self.preset,
                        overrides=self.settings(data),
                        features=self.features(index),
                        store=self.store,
                        sam=self.sam,
                        shown=chosen(data, self.shown) if seed == 0 else (),
                    )


@dataclass
class Report:
    """What is found, written out after every climb: a run that is ended early keeps what it has."""

    asked: Asked
    sets: list[DataSet]
    body: str
    json: Path | None
    markdown: Path | None
    picture: Path | None
    rows: list[Row] = field(default_factory=list)
    shown: dict[tuple[int, str], dict[str, dict[int, Any]]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, asked: Climb, found: Climbed) -> None:
        """Take a climb in; the order of arrival leaves no trace."""
        place = [data.folder for data in self.sets].index(asked.folder)
        self.rows += [{**row, "place": place} for row in found.rows]
        kinds = self.asked.proposals
        self.rows.sort(key=lambda r: (r["place"], kinds.index(r["proposals"]), r["seed"]))
        if asked.seed == 0:
            self.shown[place, asked.proposals] = found.shown
        self.write()

    def write(self) -> None:
        rows = summary(self.rows)
        if self.json:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
        if self.markdown:
            write_section(self.markdown, self.text(rows))
        if self.picture and self.shown:
            titles = {row["method"]: row["title"] for row in self.rows}
            sheets = [
                (self.sets[place], f"{self.sets[place].folder.name}, {kind}", masks)
                for (place, kind), masks in sorted(self.shown.items())
            ]
            draw(self.picture, sheets, titles)

    def text(self, rows: list[Row]) -> str:
        """The tables in Markdown."""
        asked, git = self.asked, ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        config = resolve_config("sapnet++", asked.preset, asked.settings(self.sets[0]))
        about = ABOUT.format(
            body=self.body,
            preset=asked.preset,
            side=max(config.data.short_sides),
            steps=config.train.min_steps,
            seeds=asked.seeds,
            seconds=time.monotonic() - self.began,
            workers=asked.workers,
            machine=platform.machine(),
            commit=commit or "unknown",
        )
        return as_markdown(rows, about)


def prepare(asked: Asked, index: int) -> str:
    """Features, and the bags that no seed changes, of one data set. Returns the body's origin."""
    torch.set_num_threads(1)
    data = DataSet.read(asked.folders[index])
    config = resolve_config("sapnet++", asked.preset, asked.settings(data))
    origin = freeze(data, config, asked.weights, asked.features(index))
    for proposals in asked.proposals:
        if proposals not in SIMULATED:
            deque(data.bags(proposals, 0, asked.store, asked.sam), maxlen=0)
    return f"{config.backbone.name} ({origin})"


def run(asked: Asked, report: Callable[[str], Report], tell: Callable[[str], None]) -> Report:
    """Prepare and climb, in `workers` processes; figures do not depend on how many."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.workers, context, max_tasks_per_child=1) as pool:
        bodies = list(pool.map(prepare, repeat(asked), range(len(asked.folders))))
        found = report(bodies[0])
        waiting = {pool.submit(climb, one): one for one in asked.climbs(found.sets)}
        for done, future in enumerate(as_completed(waiting), start=1):
            one = waiting[future]
            found.add(one, future.result())
            tell(f"{done} of {len(waiting)}: {one.folder.name}, {one.proposals}, seed {one.seed}")
    return found


def main(
    data: Annotated[list[Path], typer.Option(help="folder with images/, points.json, truth")],
    proposals: Annotated[list[str], typer.Option(help="simulated, hierarchy, sam, given")],
    seeds: Annotated[int, typer.Option(help="how many, from 0", min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="keep the rows")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="write the tables, between marks in a file that is there")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="write a PNG")] = None,
    weights: Annotated[Path | None, typer.Option(help="backbone state dict")] = None,
    preset: str = "cpu",
    override: Annotated[
        list[str] | None, typer.Option(help="of every rung: train.min_steps=200")
    ] = None,
    sam: Annotated[str, typer.Option(help="JSON: keywords of SAM's generator")] = "{}",
    workers: Annotated[int, typer.Option(help="processes of one thread each", min=1)] = 2,
    shown: Annotated[int, typer.Option(help="objects a data set in the picture")] = 5,
) -> None:
    with tempfile.TemporaryDirectory(prefix="ladder-") as work:
        asked = Asked(
            folders=data,
            proposals=expanded(proposals),
            seeds=seeds,
            preset=preset,
            overrides=parse_overrides(override or []),
            weights=weights,
            sam=msgspec.json.decode(sam, type=dict[str, Any]),
            workers=workers,
            shown=shown if picture else 0,
            work=Path(work),
        )
        sets = [DataSet.read(folder) for folder in data]
        found = run(
            asked,
            lambda body: Report(asked, sets, body, json, markdown, picture),
            lambda line: typer.echo(line, err=True),
        )
    typer.echo(found.text(summary(found.rows)))


if __name__ == "__main__":
    typer.run(main)
