"""A table of the SAPNet++ paper with one command: python benchmarks/paper.py --table 1 --data ROOT

ROOT holds coco/, voc/, cityscapes/ and isaid/ (those that the table needs), as their makers ship
them. Points and instances are drawn, proposals made, every row trained and evaluated on the val
split, and the table written to OUT beside the published figures. What is done is not done again:
stopped and started anew, it goes on. --dry-run shows every command.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from paper_tables import TABLE_1, TABLES, Row, markdown

from sapnet.config.resolve import resolve_config
from sapnet.errors import SapnetError
from sapnet.pipeline.run_directory import check_run_identity
from sapnet.utils.files import atomic_write, write_text

SAPNET = [sys.executable, "-m", "sapnet"]
VISIBLE = "CUDA_VISIBLE_DEVICES"
VIT_H = '{"kind": "sam", "model_type": "vit_h"}'


@dataclass(frozen=True)
class Step:
    """What leaves `makes`; done already where that is there. First `act` (in words: `says`), then
    the commands, all of them beside each other, the i-th on GPU i if there are several."""

    makes: Path
    commands: list[list[str]] = field(default_factory=list)
    act: Callable[[], None] | None = None
    says: str = ""

    def shown(self) -> str:
        """As lines of a shell."""
        lines = [f"# {self.says}"] if self.says else []
        several = len(self.commands) > 1
        for gpu, command in enumerate(self.commands):
            start, end = (f"{VISIBLE}={number(gpu)} ", " &") if several else ("", "")
            lines.append(f"{start}{shlex.join(command)}{end}")
        return "\n".join(lines + ["wait"] * several)

    def __call__(self) -> None:
        """Do it. CalledProcessError where a command fails."""
        if self.act:
            self.act()
        running = []
        for gpu, command in enumerate(self.commands):
            more = {VISIBLE: number(gpu)} if len(self.commands) > 1 else {}
            running.append(subprocess.Popen(command, env={**os.environ, **more}))
        codes = [process.wait() for process in running]
        for code, command in zip(codes, self.commands, strict=True):
            if code:
                raise subprocess.CalledProcessError(code, command)
        if self.commands and not self.makes.exists():
            write_text(self.makes, "done\n")


def number(gpu: int) -> str:
    """What the i-th of the GPUs that may be used is called."""
    given = os.environ.get(VISIBLE)
    names = given.split(",") if given else []
    return names[gpu] if gpu < len(names) else str(gpu)


@dataclass(frozen=True)
class Plan:
    """Where everything lies, and the steps of a row. Paths are absolute."""

    data: Path
    out: Path
    gpus: int
    seed: int
    proposals: dict[str, Any]
    overrides: dict[str, Any]

    def row(self, row: Row) -> Iterator[Step]:
        """Everything from the dataset to the figures on its val split."""
        yield from self.trained(row)
        yield self.points(row.data, "val")
        yield self.evaluate(row)

    def trained(self, row: Row) -> Iterator[Step]:
        yield self.points(row.data, "train")
        yield from self.propose(row)
        if row.start:
            first = next(other for other in TABLE_1.rows if other.key == row.start)
            yield from self.trained(first)
            yield self.backbone(row, first)
        yield self.train(row)

    def points(self, data: str, split: str) -> Step:
        folder = self.split(data, split)
        options = ["--from", data, "--root", self.data / data, "--split", split, "--out", folder]
        command = [*SAPNET, "points", *options, "--seed", self.seed]
        return Step(folder / "points.json", [[str(part) for part in command]])

    def propose(self, row: Row) -> Iterator[Step]:
        """The bags of the train split into the store: a share of the images on each GPU."""
        folder, settings = self.split(row.data, "train"), json.dumps(self.generator(row))
        parts = [folder / "points.json"]
        if self.gpus > 1:
            parts = [folder / f"points-{i + 1}-of-{self.gpus}.json" for i in range(self.gpus)]
            says = f"splits {parts[0].parent}/points.json into {self.gpus}"
            yield Step(parts[-1], act=lambda: deal(folder / "points.json", parts), says=says)
        options = ["--images", folder / "images", "--store", self.store, "--proposals", settings]
        commands = [[*SAPNET, "propose", "--points", part, *options] for part in parts]
        name = "-".join(f"{value}" for value in self.generator(row).values()).replace("/", "-")
        yield Step(folder / f"proposals-{name}.done", [[str(p) for p in c] for c in commands])

    def backbone(self, row: Row, first: Row) -> Step:
        source, target = self.model(first), self.out / row.key / "backbone.pt"
        says = f"takes the backbone out of {source} into {target}"
        return Step(target, act=lambda: take_backbone(source, target), says=says)

    def train(self, row: Row) -> Step:
        """One job, on all GPUs."""
        folder, path = self.split(row.data, "train"), self.out / row.key / "JOB.json"
        job: dict[str, Any] = {
            "points": str(folder / "points.json"),
            "workdir": str(self.out / row.key / "work"),
            "proposal_store": str(self.store),
            "method": row.method,
            "preset": row.preset,
            "overrides": {**row.overrides, **self.overrides},
            "seed": self.seed,
            "proposals": self.generator(row),
            "backbone_weights": str(self.out / row.key / "backbone.pt") if row.start else None,
        }
        resolve_config(job["method"], job["preset"], job["overrides"])  # better now than in a week

        def write() -> None:
            images = json.loads((folder / "points.json").read_bytes())["images"]
            paths = {i["id"]: str(folder / "images" / i["file_name"]) for i in images}
            write_text(path, json.dumps({**job, "image_paths": paths}, indent=1))

        command = [*SAPNET, "run", str(path)]
        if self.gpus > 1:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command = [*torchrun, "--nproc-per-node", str(self.gpus), "-m", "sapnet", *command[3:]]
        says = f"writes {path}: {json.dumps(job)} and the images' paths"
        return Step(self.model(row).with_name("report.json"), [command], act=write, says=says)

    def evaluate(self, row: Row) -> Step:
        folder, figures = self.split(row.data, "val"), self.figures(row)
        options = ["--model", self.model(row), "--images", folder / "images"]
        command = [*SAPNET, "evaluate", *options, "--truth", folder / "instances.json"]
        return Step(figures, [[str(part) for part in (*command, "--out", figures)]])

    def generator(self, row: Row) -> dict[str, Any]:
        more = row.proposals if self.proposals.get("kind") == "sam" else {}
        return {**self.proposals, **more}

    def split(self, data: str, split: str) -> Path:
        return self.out / "data" / f"{data}-{split}"

    @property
    def store(self) -> Path:
        return self.out / "proposals"

    def model(self, row: Row) -> Path:
        return self.out / row.key / "work" / "result" / "model.pt"

    def figures(self, row: Row) -> Path:
        return self.out / row.key / "val.json"


def deal(points: Path, parts: list[Path]) -> None:
    """A points file in as many parts, each with every n-th image."""
    document = json.loads(points.read_bytes())
    for turn, part in enumerate(parts):
        images = document["images"][turn :: len(parts)]
        ids = {image["id"] for image in images}
        rows = [row for row in document["annotations"] if row["image_id"] in ids]
        write_text(part, json.dumps({**document, "images": images, "annotations": rows}))


def take_backbone(model: Path, target: Path) -> None:
    """The body of a trained segmenter as a torchvision state dict."""
    import torch

    state = torch.load(model, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "backbone.body."
    body = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    with atomic_write(target) as file:
        torch.save(body, file)


def main(
    table: Annotated[int, typer.Option(help="1, 2, 4, 5 or 6")],
    data: Annotated[Path, typer.Option(help="folder with coco/, voc/, cityscapes/, isaid/")],
    out: Annotated[Path, typer.Option(help="data, proposals, runs and tables go here")] = Path(
        "runs"
    ),
    gpus: int = 8,
    seed: int = 0,
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="by key, repeatable; default all")
    ] = None,
    proposals: Annotated[str, typer.Option(help="JSON settings of the generator")] = VIT_H,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="train.epochs=6, for every row; repeatable")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="show every command, run none")] = False,
) -> None:
    from sapnet.cli.main import parse_kind, parse_overrides

    if table not in TABLES:
        raise typer.BadParameter(f"there is no {table}, only {', '.join(map(str, TABLES))}")
    asked = [row for row in TABLES[table].rows if not rows or row.key in rows]
    if rows and len(asked) != len(set(rows)):
        raise typer.BadParameter(f"rows are {', '.join(row.key for row in TABLES[table].rows)}")
    changes = parse_overrides(override or [])
    plan = Plan(data.resolve(), out.resolve(), gpus, seed, parse_kind(proposals), changes)
    try:
        steps = {step.makes: step for row in asked for step in plan.row(row)}
        if not dry_run:
            check_run_identity(
                plan.out, {"seed": seed, "proposals": plan.proposals, "overrides": changes}
            )
    except SapnetError as error:
        raise typer.BadParameter(f"{error}") from error
    for step in steps.values():
        if dry_run:
            print(step.shown())
        elif not step.makes.exists():
            print(step.shown(), flush=True)
            step()
    keys = [row.key for row in TABLES[table].rows if plan.figures(row).exists()]
    text = markdown(
        TABLES[table], {key: json.loads((plan.out / key / "val.json").read_bytes()) for key in keys}
    )
    print(f"\n{text}")
    if not dry_run:
        write_text(plan.out / f"table-{table}.md", text)


if __name__ == "__main__":
    typer.run(main)
