"""How good the trained segmenter is on images that it has not seen, from points and from masks.

    python benchmarks/segmenter.py --data DIR [--data DIR] --hold-out 0.25 [--seeds 3] [--json FILE]
        [--preset demo] [--weights FILE] [--proposals KIND] [--classes 12] [--override NAME=VALUE]

DIR holds images/, points.json and instances.json (COCO); `python -m sapnet.data.synthetic` writes
one. A share of its images, the same for every seed, is held out: `sapnet run` trains on the points
of the others, and AP is of what its model finds in those held out. Beside it stands the same
segmenter trained on the true masks of the same images (method `sam-top1`, every mask confirmed:
nothing is selected or refined). --hold-out 0 measures on the training images themselves. The masks
that the training delivers are compared with the truth of its own images: mean IoU, share over 0.5,
and how well their quality tells these (AUROC, Brier). The JSON is a list with a row a dataset and
seed; the table has mean and sample deviation over the seeds.
"""

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from ladder_data import DataSet
from ladder_picks import Row
from ladder_tables import mean_spread

from sapnet.cli.main import parse_overrides
from sapnet.evaluation.average_precision import average_precision
from sapnet.evaluation.calibration import RIGHT, auroc, brier
from sapnet.evaluation.detections import detect
from sapnet.evaluation.pseudo_masks import ious_with
from sapnet.evaluation.pseudo_masks import true_masks as true_masks_of
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.types import PointSet, PseudoMask
from sapnet.utils.files import file_sha256, write_text

FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
DELIVERED = ("delivered", "over_half", "auroc", "brier")


@dataclass(frozen=True)
class Split:
    """Points to train on, and the ids of the images to measure on."""

    points: PointSet
    measured: frozenset[int]

    @property
    def categories(self) -> set[int]:
        return {category.id for category in self.points.categories}


def split(data: DataSet, hold_out: float, classes: int | None = None) -> Split:
    """Hold out a share of the images: those whose files' hashes are smallest.

    classes: train and measure only so many, those with the most objects.
    """
    hashed = {id_: file_sha256(path) for id_, path in data.paths.items()}
    ranked = sorted(hashed, key=lambda id_: (hashed[id_], id_))
    held = frozenset(ranked[: round(hold_out * len(ranked))])
    points = data.points
    frequency = Counter(annotation.category_id for annotation in points.annotations)
    kept = {id_ for id_, _ in frequency.most_common(classes)}
    part = PointSet(
        images=tuple(image for image in points.images if image.id not in held),
        annotations=tuple(
            a for a in points.annotations if a.image_id not in held and a.category_id in kept
        ),
        categories=tuple(c for c in points.categories if classes is None or c.id in kept),
    )
    return Split(part, held or frozenset(hashed))


def with_true_masks(points: PointSet, truth: dict[str, Any]) -> PointSet:
    """The points with their true masks as confirmed ones; those that have none are left out."""
    masks = true_masks_of(points, truth)
    annotations = tuple(replace(a, mask=masks[a.id]) for a in points.annotations if a.id in masks)
    return replace(points, annotations=annotations)


def delivered(result: Path, data: DataSet, points: PointSet) -> dict[str, float | None]:
    """How good the pseudo-masks of a run are, and how well their quality tells it."""
    lines = (result / "pseudo_masks.ndjson").read_text().splitlines()
    masks = [msgspec.json.decode(line, type=PseudoMask) for line in lines]
    ious = ious_with(masks, true_masks_of(points, data.truth))
    found = np.array(list(ious.values()))
    quality = np.array([mask.quality for mask in masks if mask.id in ious])
    right = found >= RIGHT
    return {
        "delivered": float(found.mean()),
        "over_half": float(right.mean()),
        "auroc": auroc(-quality, ~right),
        "brier": brier(quality, right),
    }


@dataclass(frozen=True)
class Trial:
    """What every training of the benchmark has in common. work: a folder that is thrown away."""

    preset: str
    proposals: str
    overrides: dict[str, Any]
    weights: Path | None
    work: Path
    tell: Callable[[str], None] = lambda _line: None

    def train(self, data: DataSet, points: PointSet, method: str, seed: int) -> Path:
        """Train, and return the folder of the results."""
        name = hashlib.sha256(f"{data.folder} {method} {seed}".encode()).hexdigest()[:12]
        spec = RunSpec(
            points=points,
            image_paths={image.id: data.paths[image.id] for image in points.images},
            workdir=self.work / name,
            proposal_store=self.work / "proposals",
            method=method,
            preset=self.preset,
            overrides=self.overrides,
            seed=seed,
            proposals={"kind": self.proposals},
            backbone_weights=self.weights,
        )
        Run(spec, lambda event: None, lambda: False)()
        return spec.workdir / "result"

    def measure(self, result: Path, data: DataSet, part: Split) -> dict[str, float | None]:
        """AP, AP50 and AP75 on the images to measure on."""
        predictor = load_predictor(result / "model.pt")
        images = [image for image in data.truth["images"] if image["id"] in part.measured]
        truth = {**data.truth, "images": images}
        found = detect(predictor, data.paths, truth)
        scores = average_precision(
            found, truth, image_ids=part.measured, category_ids=part.categories
        )
        return {name: scores[key] for name, key in FIGURES.items()}

    def row(self, data: DataSet, part: Split, seed: int, true_masks: bool) -> Row:
        """The figures of one dataset and seed."""
        began = time.monotonic()
        result = self.train(data, part.points, "sapnet++", seed)
        figures = self.measure(result, data, part) | delivered(result, data, part.points)
        row = {"data": data.folder.name, "seed": seed, **figures}
        row["seconds"] = round(time.monotonic() - began, 1)
        self.tell(f"{row}")
        if true_masks:
            masks = with_true_masks(part.points, data.truth)
            ideal = self.measure(self.train(data, masks, "sam-top1", seed), data, part)
            row |= {f"{name}_true_masks": value for name, value in ideal.items()}
            self.tell(f"{row}")
        about = {"preset": self.preset, "proposals": self.proposals, "overrides": self.overrides}
        counts = {"images": len(part.points.images), "measured_on": len(part.measured)}
        return {**row, **about, **counts}


def table(rows: Sequence[Row]) -> str:
    """Mean ± sample deviation of every figure, a line a dataset, in Markdown."""
    names = [f"{name}{of}" for of in ("", "_true_masks") for name in FIGURES]
    names += DELIVERED
    shown = [name for name in names if any(name in row for row in rows)]
    lines = [f"| data | seeds | {' | '.join(shown)} |", f"|---|--:|{'--:|' * len(shown)}"]
    for data in dict.fromkeys(row["data"] for row in rows):
        group = [row for row in rows if row["data"] == data]
        cells = []
        for name in shown:
            mean, spread = mean_spread([r[name] for r in group if r.get(name) is not None])
            cells.append("-" if mean is None else f"{mean:.3f} ± {spread:.3f}")
        lines.append(f"| {data} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    data: Annotated[list[Path], typer.Option(help="folder: images/, points.json, instances.json")],
    hold_out: Annotated[
        float, typer.Option(help="share of the images; 0: measure on those trained on", min=0)
    ] = 0.25,
    seeds: Annotated[int, typer.Option(help="how many, from 0", min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="keep the rows")] = None,
    preset: str = "cpu",
    proposals: str = "hierarchy+prompter",
    weights: Annotated[Path | None, typer.Option(help="backbone state dict")] = None,
    classes: Annotated[int | None, typer.Option(help="only those with the most objects")] = None,
    override: Annotated[list[str] | None, typer.Option(help="such as train.min_steps=200")] = None,
    true_masks: Annotated[bool, typer.Option(help="train on true masks, too")] = True,
) -> None:
    if hold_out >= 1:
        raise typer.BadParameter("a share of 1 leaves no image to train on")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="segmenter-") as work:
        trial = Trial(
            preset=preset,
            proposals=proposals,
            overrides=parse_overrides(override or []),
            weights=weights,
            work=Path(work),
            tell=lambda line: typer.echo(line, err=True),
        )
        for folder in data:
            read = DataSet.read(folder)
            part = split(read, hold_out, classes)
            for seed in range(seeds):
                rows.append(trial.row(read, part, seed, true_masks))
                if json:
                    text = msgspec.json.format(msgspec.json.encode(rows)).decode()
                    write_text(json, text + "\n")
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
