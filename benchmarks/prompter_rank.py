"""Fitting of the ranker: on images that the network was not trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import prompter_data as data
import prompter_measure as measure
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from sapnet.proposals.prompter.joined import JoinedGenerator
from sapnet.proposals.prompter.network import Prompter
from sapnet.proposals.prompter.ranker import Perceptrons, Ranker, context, figures
from sapnet.types import ImageInfo, PointAnnotation, Rle

_STEPS, _RATE, _DECAY, _BATCH = 300, 6e-3, 3e-3, 2048
_MOST = 14  # objects of an image
_DEPTH = 0.6  # clicks are where a mask is at least so deep, of its greatest depth


@dataclass(frozen=True)
class RankedPoint:
    """One point's candidates. told: (M, FIGURES). iou: (M,) with the truth. image: its number."""

    told: np.ndarray
    iou: np.ndarray
    rles: list[Rle]
    image: int


def held_out(root: Path, *, free: bool) -> Iterator[measure.LabeledImage]:
    """The images of the split "val", with a click on each of at most 14 objects.

    free: see `prompter_data.entries`; the ranker is shipped, too.
    """
    rng = np.random.default_rng(3)
    for number, entry in enumerate(data.entries(root, "val", free=free)):
        chosen = rng.permutation(len(entry.segments))[:_MOST]
        points, truth = [], []
        for index in chosen:
            mask = coco_mask.decode(entry.segments[index])
            if mask.sum() < 9:
                continue
            top, left, depth = data.depth_of(mask * np.uint8(255))
            rows, columns = np.nonzero(depth >= _DEPTH * depth.max())
            at = rng.integers(len(rows))
            x, y = left + columns[at] + rng.random(), top + rows[at] + rng.random()
            points.append(PointAnnotation(len(points), number, 1, float(x), float(y)))
            truth.append(entry.segments[index])
        info = ImageInfo(number, entry.path.name, entry.width, entry.height)
        yield measure.LabeledImage(info, measure.read(entry.path), points, truth)


def gather(model: Prompter, images: Iterator[measure.LabeledImage]) -> list[RankedPoint]:
    """model: as `weights.ready` makes it."""
    generator = JoinedGenerator.of(model, Ranker(), "")
    out = []
    for labeled in images:
        places = np.array([(a.x, a.y) for a in labeled.points], np.float32)
        found = generator.candidates(labeled.image, labeled.info, labeled.points)
        for index, (candidates, answer) in enumerate(found):
            told = figures(model.judge, answer, candidates, places, index)
            iou = coco_mask.iou(list(candidates.rles), [labeled.truth[index]], [0])[:, 0]
            out.append(
                RankedPoint(told, np.asarray(iou, np.float32), candidates.rles, labeled.info.id)
            )
    return out


def fit(points: list[RankedPoint], seed: int = 0) -> Ranker:
    """Both stages. What the second sees of the first comes from a fit on the other half of the
    images, as on new images."""
    torch.manual_seed(seed)
    ranker = Ranker()
    images = sorted({p.image for p in points})
    half = [[p for p in points if p.image in images[k::2]] for k in (0, 1)]
    _train(ranker.alone, [(p.told, p.iou) for p in points])
    seen = []
    for k in (0, 1):
        first = Ranker().alone
        _train(first, [(p.told, p.iou) for p in half[1 - k]])
        seen += [(t, p.iou) for t, p in zip(with_context(first, half[k]), half[k], strict=True)]
    _train(ranker.together, seen)
    return ranker.eval().requires_grad_(False)


@torch.inference_mode()
def with_context(alone: Perceptrons, points: list[RankedPoint]) -> list[np.ndarray]:
    """(M, FIGURES + CONTEXT) of each point."""
    out: list[np.ndarray] = []
    estimates = [alone(torch.from_numpy(p.told)).numpy() for p in points]
    for index, point in enumerate(points):
        mine = [i for i, p in enumerate(points) if p.image == point.image]
        rles = [points[i].rles for i in mine]
        more = context(rles, [estimates[i] for i in mine], mine.index(index))
        out.append(np.concatenate([point.told, more], 1))
    return out


def _train(perceptrons: Perceptrons, points: list[tuple[np.ndarray, np.ndarray]]) -> None:
    told = torch.from_numpy(np.concatenate([t for t, _ in points]))
    true = torch.from_numpy(np.concatenate([iou for _, iou in points]))
    perceptrons.mean.copy_(told.mean(0))
    perceptrons.spread.copy_(told.std(0) + 1e-3)
    perceptrons.train()
    for member in perceptrons.members:
        optimizer = torch.optim.AdamW(member.parameters(), _RATE, weight_decay=_DECAY)
        for step in range(_STEPS):
            optimizer.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
            chosen = torch.randint(len(told), (_BATCH,))
            x = (told[chosen] - perceptrons.mean) / perceptrons.spread
            loss = F.smooth_l1_loss(torch.sigmoid(member(x)[:, 0]), true[chosen], beta=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    perceptrons.eval()


@torch.inference_mode()
def picked(ranker: Ranker, points: list[RankedPoint]) -> dict[str, float]:
    """Mean IoU of the candidate with the highest estimate of either stage, and of the best."""
    told = {"alone": [p.told for p in points], "together": with_context(ranker.alone, points)}
    out = {"best": float(np.mean([p.iou.max() for p in points]))}
    for stage, figures_of in told.items():
        perceptrons = getattr(ranker, stage)
        tops = [int(perceptrons(torch.from_numpy(t)).argmax()) for t in figures_of]
        out[stage] = float(np.mean([p.iou[t] for p, t in zip(points, tops, strict=True)]))
    return out
