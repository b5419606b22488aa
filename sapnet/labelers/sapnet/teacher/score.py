"""A trained teacher's scores of each proposal."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.types import ProposalScores

if TYPE_CHECKING:
    from sapnet.labelers.sapnet.teacher.dataset import TeacherExample
    from sapnet.labelers.sapnet.teacher.network import Teacher

_RING = 3  # cells around a mask that count as its surroundings
_LIMIT = 6.0  # logits beyond this add nothing


@torch.no_grad()
def score_proposals(teacher: "Teacher", example: "TeacherExample") -> list[ProposalScores]:
    """The scores of each point's proposals, an entry a point of the image."""
    if not len(example):
        return []
    inside, mask = teacher(example, torch.arange(len(example), device=example.points.device))
    probs = mask.sigmoid()
    scores = []
    for n, stored in enumerate(example.masks):
        masks = stored.float() / 255
        scores.append(
            ProposalScores(
                contrast_of(inside[n], masks).cpu().numpy(),
                overlap_of(probs[n], masks).cpu().numpy(),
            )
        )
    return scores


def contrast_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean log p inside each mask plus mean log (1 − p) in the ring around it, (M,).

    Args:
        logits: (G, G).
        masks: (M, G, G) in [0, 1].
    """
    logits = logits.clamp(-_LIMIT, _LIMIT)
    wide = F.max_pool2d(masks[:, None], 2 * _RING + 1, 1, _RING)[:, 0]
    ring = wide - masks
    inside = (masks * F.logsigmoid(logits)).sum((1, 2)) / (masks.sum((1, 2)) + 1e-3)
    around = (ring * F.logsigmoid(-logits)).sum((1, 2)) / (ring.sum((1, 2)) + 1e-3)
    return inside + around


def overlap_of(probs: Tensor, masks: Tensor) -> Tensor:
    """Soft IoU of one soft mask (G, G) with each of (M, G, G), (M,)."""
    shared = (probs * masks).sum((1, 2))
    return shared / (probs.sum() + masks.sum((1, 2)) - shared + 1e-6)
