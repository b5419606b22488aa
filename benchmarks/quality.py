"""How far a pseudo-mask's quality can be believed, and the weights that make it.

Trains on datasets with truth (a finished training in the work folder is taken as it is, and only
its masks are made anew), reads the features of every mask, and says how well they tell masks with
an IoU below 0.5 from the others: each signal alone; the shipped weights; weights fitted on the
other sets alone; weights fitted on the set itself, cross-validated by image. Then it fits all sets
together and prints what sapnet/labelers/quality.py should hold.

    python benchmarks/quality.py --data DIR --data DIR --scenes 48 --work FOLDER --weights FILE

The fit: logistic, every set weighing the same, weights not negative (a signal that is for a mask in
one dataset is not to be against it in the next), with a ridge.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import typer
from scipy.optimize import minimize

from sapnet.cli.console import EventLog
from sapnet.data.annotations.coco import read_truth
from sapnet.data.dataset_folder import read_dataset
from sapnet.data.synthetic import make_scenes
from sapnet.evaluation.calibration import RIGHT, auroc, bins_of, brier
from sapnet.evaluation.pseudo_masks import ious_with, true_masks
from sapnet.labelers.quality import INTERCEPT, WEIGHTS, probability, quality_signals
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec
from sapnet.types import PointSet, PseudoMask
from sapnet.utils.files import write_text

Floats = npt.NDArray[np.float64]
FOLDS, RIDGE = 5, 0.01


@dataclass(frozen=True)
class Masks:
    """The masks of a dataset: their signals (N, S), in the order of WEIGHTS, whether each is right
    (N,), its image (N,), and the quality that the shipped weights give it (N,)."""

    signals: Floats
    right: Floats
    image: npt.NDArray[np.int64]
    quality: Floats

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Masks":
        return Masks(*(column[chosen] for column in vars(self).values()))


def masks_of(spec: RunSpec) -> Masks:
    """Those of a run, which is brought to its end where it is not."""
    Run(spec, EventLog(every=60), lambda: False)()
    lines = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    masks = [msgspec.json.decode(line, type=PseudoMask) for line in lines]
    assert isinstance(spec.points, PointSet)
    assert spec.truth is not None
    ious = ious_with(masks, true_masks(spec.points, read_truth(spec.truth)))
    masks = [mask for mask in masks if mask.id in ious]
    told = [quality_signals(mask.mask_features) for mask in masks]
    return Masks(
        signals=np.array([[one[name] for name in WEIGHTS] for one in told]),
        right=np.array([ious[mask.id] >= RIGHT for mask in masks], dtype=np.float64),
        image=np.array([mask.image_id for mask in masks]),
        quality=np.array([probability(mask.mask_features) for mask in masks]),
    )


def fit(sets: Sequence[Masks], ridge: float = RIDGE) -> Floats:
    """Intercept and weights >= 0, (1 + S,): least mean log-loss, every set weighing the same.

    ridge: on the weights, each times its signal's deviation over all sets.
    """
    spread = np.sqrt(np.mean([s.signals.var(axis=0) for s in sets], axis=0)) + 1e-6
    x = np.concatenate([s.signals for s in sets]) / spread
    y = np.concatenate([s.right for s in sets])
    weight = np.concatenate([np.full(len(s.right), 1 / len(s.right)) for s in sets]) / len(sets)

    def loss(b: Floats) -> tuple[float, Floats]:
        z = b[0] + x @ b[1:]
        wrong = weight * (1 / (1 + np.exp(-z)) - y)
        value = float((weight * (np.logaddexp(0, z) - y * z)).sum() + ridge / 2 * b[1:] @ b[1:])
        return value, np.concatenate([[wrong.sum()], x.T @ wrong + ridge * b[1:]])

    bounds = [(None, None)] + [(0, None)] * x.shape[1]
    found = minimize(loss, np.zeros(1 + x.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.concatenate([found.x[:1], found.x[1:] / spread])


def said(masks: Masks, fitted: Floats) -> Floats:
    """The probabilities that these weights give, (N,)."""
    return np.asarray(1 / (1 + np.exp(-fitted[0] - masks.signals @ fitted[1:])))


def by_image(masks: Masks, seed: int = 0) -> Floats:
    """Probabilities from weights fitted on the other images of the same set, (N,)."""
    images = np.unique(masks.image)
    folds = np.random.default_rng(seed).permutation(len(images)) % FOLDS
    fold = folds[np.searchsorted(images, masks.image)]
    out = np.zeros(len(masks.right))
    for number in range(FOLDS):
        out[fold == number] = said(masks.part(fold == number), fit([masks.part(fold != number)]))
    return out


def figures(quality: Floats, right: Floats) -> dict[str, Any]:
    """AUROC of finding the wrong ones, Brier score, what was said on average, and by tenths."""
    return {
        "auroc": auroc(-quality, right < 0.5),
        "brier": round(brier(quality, right), 4),
        "said": round(float(quality.mean()), 4),
        "bins": bins_of(quality, right),
    }


def measure(sets: dict[str, Masks]) -> dict[str, Any]:
    """All figures by dataset, and the weights fitted on all of them."""
    by_set = {}
    for name, masks in sets.items():
        rest = [other for key, other in sets.items() if key != name]
        wrong = masks.right < 0.5
        by_set[name] = {
            "masks": len(wrong),
            "wrong": int(wrong.sum()),
            "shipped": figures(masks.quality, masks.right),
            "fitted on the other sets": figures(said(masks, fit(rest)), masks.right)
            if rest
            else None,
            "own, by image": figures(by_image(masks), masks.right),
            "alone": {
                signal: auroc(-masks.signals[:, place], wrong)
                for place, signal in enumerate(WEIGHTS)
            },
        }
    together = fit(list(sets.values()))
    fitted = {name: round(float(w), 3) for name, w in zip(WEIGHTS, together[1:], strict=True)}
    return {"sets": by_set, "intercept": round(float(together[0]), 3), "weights": fitted}


def tables(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    ways = ("shipped", "fitted on the other sets", "own, by image")
    lines = [
        "| dataset | masks | wrong | " + " | ".join(f"{w}: AUROC / Brier" for w in ways) + " |"
    ]
    lines.append("|---" * (3 + len(ways)) + "|")
    for name, of in found["sets"].items():
        cells = [
            f"{of[way]['auroc'] or float('nan'):.3f} / {of[way]['brier']:.3f}" if of[way] else "–"
            for way in ways
        ]
        lines.append(f"| {name} | {of['masks']} | {of['wrong']} | {' | '.join(cells)} |")
    lines += ["", "| signal alone, AUROC | " + " | ".join(found["sets"]) + " | weight | fitted |"]
    lines.append("|---" * (3 + len(found["sets"])) + "|")
    for signal, weight in WEIGHTS.items():
        alone = [f"{of['alone'][signal] or float('nan'):.3f}" for of in found["sets"].values()]
        lines.append(
            f"| {signal} | {' | '.join(alone)} | {weight:g} | {found['weights'][signal]:g} |"
        )
    lines += ["", f"Intercept {INTERCEPT:g}, fitted {found['intercept']:g}.", ""]
    for name, of in found["sets"].items():
        bins = [
            f"{b['quality']:.2f} → {b['right']:.2f} ({b['count']})" for b in of["shipped"]["bins"]
        ]
        lines.append(f"- {name}, quality → share right (masks): {', '.join(bins)}")
    return "\n".join(lines)


def main(
    data: Annotated[
        list[Path], typer.Option(help="folder with points.json, instances.json, images")
    ],
    work: Annotated[Path, typer.Option(help="a run a dataset, by its name, goes here")],
    weights: Annotated[Path | None, typer.Option(help="backbone state dict")] = None,
    scenes: Annotated[int, typer.Option(help="generated ones, as a further set")] = 0,
    out: Annotated[Path | None, typer.Option("--json", help="the figures go here too")] = None,
) -> None:
    """Train, measure, fit."""

    def spec(folder: Path, preset: str, file: Path | None) -> RunSpec:
        dataset = read_dataset(folder / "points.json", folder / "images", lambda issue: None)
        return RunSpec(
            points=dataset.points,
            image_paths=dataset.files,
            workdir=work / folder.name,
            proposal_store=work / folder.name / "proposals",
            truth=folder / "instances.json",
            preset=preset,
            backbone_weights=file,
        )

    specs = [spec(folder, "cpu", weights) for folder in data]
    if scenes:
        make_scenes(work / "scenes", scenes)
        specs.append(spec(work / "scenes", "demo", None))
    found = measure({one.workdir.name: masks_of(one) for one in specs})
    typer.echo(tables(found))
    if out:
        write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
