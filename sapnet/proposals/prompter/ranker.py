"""The IoU to expect of every candidate of a bag, whatever made it.

The network's head scores each mask in each window; a small perceptron weighs these estimates, how
much the candidates agree with each other, and plain figures of the mask. A second one sees besides
what the first would take for the image's other points: objects seldom overlap, and those of one
image are often of like size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from sapnet.data.masks import encode_all, mask_iou, tight_boxes
from sapnet.proposals.prompter.answers import Answer
from sapnet.proposals.prompter.network import IouHead
from sapnet.proposals.prompter.scene import cell_shares
from sapnet.proposals.prompter.windows import GRID
from sapnet.types import BoolArray, FloatArray, Rle

FIGURES = 22
CONTEXT = 7  # more figures, which the second perceptron sees
_WHOLLY = 0.97  # of a mask's area: a window that shows so much of it can score it
_HIDDEN = (48, 24)
_MEMBERS = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """The masks of one point. The first `given` come from elsewhere, the rest from the network.

    Attributes:
        masks: (M, H, W) bool.
        rles: M, the same.
        sources: M, of `RawProposals`.
        confidence: (M,) of their makers.
        area: (M,) pixels.
        iou: (M, M).
    """

    masks: BoolArray
    rles: list[Rle]
    sources: list[str]
    given: int
    confidence: FloatArray
    area: np.ndarray
    iou: FloatArray

    @classmethod
    def of(
        cls, masks: BoolArray, confidence: FloatArray, sources: Sequence[str], *, given: int
    ) -> "Candidates":
        """Those of masks (M, H, W) that are not empty; the first `given` come from elsewhere."""
        rles = encode_all(masks)
        area = coco_mask.area(rles).astype(np.int64)
        filled = np.flatnonzero(area)
        if len(filled) < len(masks):
            masks, rles = masks[filled], [rles[i] for i in filled]
        return cls(
            masks=masks,
            rles=rles,
            sources=[sources[int(i)] for i in filled],
            given=int((filled < given).sum()),
            confidence=np.asarray(confidence[filled], np.float32),
            area=area[filled],
            iou=mask_iou(rles),
        )


class Ranker(nn.Module):
    """alone: from a candidate's own figures. together: from those and the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = Perceptrons(FIGURES)
        self.together = Perceptrons(FIGURES + CONTEXT)


class Perceptrons(nn.Module):
    """Figures of candidates in, the IoU to expect out: the mean of a few perceptrons."""

    mean: Tensor
    spread: Tensor

    def __init__(self, figures: int) -> None:
        super().__init__()
        one, two = _HIDDEN
        self.register_buffer("mean", torch.zeros(figures))
        self.register_buffer("spread", torch.ones(figures))
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(figures, one),
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.Linear(one, two),
                nn.ReLU(),
                nn.Linear(two, 1),
            )
            for _ in range(_MEMBERS)
        )

    def forward(self, figures: Tensor) -> Tensor:
        """(M, figures) -> (M,) in [0, 1]."""
        x = (figures - self.mean) / self.spread
        each = [torch.sigmoid(member(x)[:, 0]) for member in self.members]
        return torch.stack(each).mean(0)


@torch.inference_mode()
def estimated_ious(
    head: IouHead, answer: Answer, masks: BoolArray, area: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """(W, M) IoU by each window's estimate, and the share of each mask that each window shows.

    Args:
        masks: (M, H, W) bool, of (M,) pixels each.
    """
    cells = np.stack([cell_shares(masks, frame, GRID) for frame in answer.frames])
    estimates = head(answer.drawn, torch.from_numpy(cells)).numpy()
    sides = answer.frames[:, 2] - answer.frames[:, 0]
    shown = cells.sum((2, 3)) * ((sides / GRID) ** 2)[:, None]
    return estimates, np.minimum(shown / np.maximum(area, 1), 1).astype(np.float32)


def figures(
    head: IouHead, answer: Answer, candidates: Candidates, points: FloatArray, own: int
) -> FloatArray:
    """(M, FIGURES) of one point's candidates.

    Args:
        points: (N, 2) xy of all.
        own: whose they are.
    """
    masks, given, scores = candidates.masks, candidates.given, candidates.confidence
    out = np.zeros((len(masks), FIGURES), np.float32)
    drawn = np.arange(len(masks)) >= given
    out[:, 0] = ~drawn
    out[~drawn, 1] = scores[~drawn]
    out[drawn, 2] = scores[drawn]
    estimates, shown = estimated_ious(head, answer, masks, candidates.area)
    weight = np.where(shown >= _WHOLLY, 1.0, 1e-3 * shown**4)
    fit = np.argmax(shown >= shown.max(0) - 0.02, axis=0)  # the smallest window that shows it all
    every = np.arange(len(masks))
    out[:, 3] = estimates[fit, every]
    out[:, 4] = (estimates * weight).sum(0) / weight.sum(0)
    out[:, 5] = (estimates * (weight > 0.5)).max(0)
    sides = answer.frames[fit, 2] - answer.frames[fit, 0]
    area = candidates.area.astype(np.float64)
    out[:, 6] = np.sqrt(area) / sides
    if drawn.any():
        out[:, 7:14] = _agreement(candidates.iou[:, given:], scores[given:], area, area[given:])
    if given:
        agreed = _agreement(candidates.iou[:, :given], scores[:given], area, area[:given])
        out[:, 14:17] = agreed[:, [0, 3, 5]]
    size = masks.shape[1] * masks.shape[2]
    out[:, 17] = np.log(area / size + 1e-5) / 3
    boxes = tight_boxes(candidates.rles)
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    out[:, 18] = area / extent.prod(1)
    columns = np.clip(points[:, 0].astype(int), 0, masks.shape[2] - 1)
    rows = np.clip(points[:, 1].astype(int), 0, masks.shape[1] - 1)
    others = np.arange(len(points)) != own
    out[:, 19] = np.log1p(masks[:, rows[others], columns[others]].sum(1))
    place = (points[own] - boxes[:, :2]) / extent - 0.5
    out[:, 20] = np.minimum(2 * np.hypot(place[:, 0], place[:, 1]), 1.5)
    out[:, 21] = masks[:, rows[own], columns[own]]
    return out


def context(rles: Sequence[Sequence[Rle]], estimates: Sequence[FloatArray], own: int) -> FloatArray:
    """(M, CONTEXT) of one point's candidates beside the best of every other point's.

    Args:
        rles: of all points, M each.
        estimates: (M,) each, of `Ranker.alone`.
        own: which point.
    """
    out = np.zeros((len(rles[own]), CONTEXT), np.float32)
    out[:, 0] = estimates[own]
    others = [i for i in range(len(rles)) if i != own and len(rles[i])]
    if not others or not len(out):
        return out
    tops = [int(estimates[i].argmax()) for i in others]
    picks = [rles[i][top] for i, top in zip(others, tops, strict=True)]
    sure = np.array([estimates[i][top] for i, top in zip(others, tops, strict=True)])
    area = np.maximum(coco_mask.area(list(rles[own])), 1).astype(np.float64)
    sizes = np.maximum(coco_mask.area(picks), 1).astype(np.float64)
    share = coco_mask.iou(list(rles[own]), picks, [1] * len(picks))  # of the candidate's area
    out[:, 1] = (share * sure).max(1)
    out[:, 2] = (np.minimum(share * area[:, None] / sizes, 1) * sure).max(1)
    middle = np.median(np.log(sizes))
    out[:, 3] = np.log(area) - middle
    out[:, 4] = np.median(np.abs(np.log(sizes) - middle))
    out[:, 5] = np.log1p(len(picks))
    out[:, 6] = sure.mean()
    return out


def _agreement(
    iou: FloatArray, scores: FloatArray, area: np.ndarray, others: np.ndarray
) -> FloatArray:
    """(M, 7) of M masks with K others. iou: (M, K). scores: (K,) confidence. area: (M,), (K,)."""
    out = np.zeros((len(iou), 7), np.float32)
    for column, heat in enumerate((0.06, 0.2)):
        weight = np.exp((scores - scores.max()) / heat)
        out[:, column] = iou @ (weight / weight.sum())
    top = int(scores.argmax())
    out[:, 2] = (iou * scores).max(1)
    out[:, 3] = iou[:, top]
    out[:, 4] = scores[top]
    out[:, 5] = iou.mean(1)
    out[:, 6] = np.log(area / max(others[top], 1))
    return out
