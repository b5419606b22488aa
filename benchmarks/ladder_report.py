"""What the ladder found, written out after every climb: ended early, it keeps what it has."""

import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import affinity as affinity_benchmark
import msgspec
from ladder_climb import Climb, Climbed
from ladder_data import DataSet
from ladder_figure import draw
from ladder_picks import Row
from ladder_tables import markdown, summary, write_section

from sapnet.config.schema import Config
from sapnet.utils.files import write_text

FROZEN = (
    "Each learned rung trains the pyramid and the MIL branch alone, over frozen features of "
    "{bodies}: it tells what a component adds to selection. The whole product, which trains end to "
    "end, is measured by `sapnet run` and `make demo`. "
)
WHOLE = "Each learned rung is a whole run, trained end to end. "
ABOUT = (
    "Rungs are cumulative; one that the preset leaves off is measured and goes again. `step` is "
    "the change from the rung below, seed by seed. Preset `{preset}`, short side {side}, {steps} "
    "steps or more (by dataset), {seeds} seeds, {workers} processes of one thread, {machine}, "
    "commit {commit}, {seconds:.0f} s in all."
)


@dataclass(frozen=True)
class About:
    """How it was measured, for the reader of the tables. configs: one a dataset."""

    configs: list[Config]
    seeds: int
    workers: int
    end_to_end: bool

    def text(self, bodies: list[str], seconds: float) -> str:
        git = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        text = (WHOLE if self.end_to_end else FROZEN) + ABOUT
        return text.format(
            bodies=", ".join(dict.fromkeys(bodies)),
            preset=self.configs[0].preset,
            side=max(self.configs[0].data.short_sides),
            steps=", ".join(str(config.train.min_steps) for config in self.configs),
            seeds=self.seeds,
            workers=self.workers,
            machine=platform.machine(),
            commit=commit or "unknown",
            seconds=seconds,
        )


@dataclass
class Report:
    """Rows, masks for the figure, and the files that they go to, those that are wanted.

    bodies: where the frozen features come from, by set. affinity: rows of benchmarks/affinity.py.
    """

    sets: list[DataSet]
    proposals: list[str]
    about: About
    json: Path | None = None
    markdown: Path | None = None
    figure: Path | None = None
    bodies: list[str] = field(default_factory=list)
    affinity: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    shown: dict[tuple[int, int], dict[str, dict[int, Any]]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, asked: Climb, found: Climbed) -> None:
        """Take a climb in. The order of arrival leaves no trace."""
        place = [data.folder for data in self.sets].index(asked.folder)
        kind = self.proposals.index(asked.proposals)
        self.rows += [{**row, "order": (place, kind, row["seed"])} for row in found.rows]
        self.rows.sort(key=lambda row: row["order"])
        if asked.seed == 0:
            self.shown[place, kind] = found.shown
        self.write()

    def write(self) -> None:
        """Every file that was asked for, with what there is so far."""
        if self.json:
            rows = summary(self.rows)
            write_text(self.json, msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")
        if self.markdown:
            write_section(self.markdown, self.text())
        if self.figure:
            titles = {row["method"]: row["title"] for row in self.rows}
            sheets = [
                (self.sets[i], f"{self.sets[i].folder.name}, {self.proposals[kind]}", masks)
                for (i, kind), masks in sorted(self.shown.items())
            ]
            draw(self.figure, sheets, titles)

    def text(self) -> str:
        """The tables in Markdown."""
        about = self.about.text(self.bodies, time.monotonic() - self.began)
        text = markdown(summary(self.rows), about)
        if self.affinity:
            text += f"\n**Refinement**\n\n{affinity_benchmark.markdown(self.affinity)}"
        return text
