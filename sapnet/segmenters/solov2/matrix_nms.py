"""Matrix NMS (SOLOv2, section 3.4): every score decays at once, no mask is removed in turn."""

from typing import Literal

import torch
from torch import Tensor


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    kernel: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """Decayed scores of masks (n, h, w) bool; see `decay`."""
    flat = masks.flatten(1).float()
    return decay(flat @ flat.T, labels, scores, kernel=kernel, sigma=sigma)


def decay(
    overlap: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    kernel: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """Decayed scores, in the order of the input.

    s_j · min over higher-scored i of the same class of f(iou_ij) / f(max_k iou_ki), with k over
    those above i, and f(iou) = exp(-σ·iou²), or 1 - iou for "linear". Of equal scores, the one that
    comes first counts as higher.

    Args:
        overlap: (n, n) float, the pixels that two masks share, and on the diagonal their areas;
            those of two classes are not read.
        labels: (n,) int64.
        scores: (n,) float in [0, 1].
    """
    if len(scores) == 0:
        return scores.clone()
    order = scores.argsort(descending=True, stable=True)
    share = decay_of(overlap[order][:, order], labels[order], kernel, sigma)
    decayed = torch.empty_like(scores)
    decayed[order] = scores[order] * share
    return decayed


def decay_of(
    overlap: Tensor, labels: Tensor, kernel: Literal["gaussian", "linear"], sigma: float
) -> Tensor:
    """The factors of `decay`, (n,) in [0, 1].

    An empty mask decays no other.

    Args:
        overlap: (n, n) shared areas, by falling score.
        labels: (n,), by falling score.
        kernel: of the decay.
        sigma: of the Gaussian one.
    """
    area = overlap.diagonal()
    union = area[:, None] + area - overlap
    same = labels[:, None] == labels
    iou = torch.triu(overlap / union.clamp(min=1) * same, diagonal=1)
    worst = iou.amax(0)[:, None]  # of i with those above it
    if kernel == "gaussian":
        share = torch.exp(-sigma * (iou.square() - worst.square()))
    else:
        share = (1 - iou) / (1 - worst).clamp(min=1e-6)
    # rows that do not compete with j say f(0) / f(worst) ≥ 1, and the first row says 1 at most
    return share.amin(0)
