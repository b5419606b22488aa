"""What a taught teacher says of each proposal, and the mask that it would draw itself."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.types import Judgement

if TYPE_CHECKING:
    from sapnet.teacher.lesson import Lesson
    from sapnet.teacher.network import Teacher

_RING = 3  # cells around a mask that count as its surroundings
_LIMIT = 6.0  # logits beyond this add nothing


@torch.no_grad()
def judge(teacher: "Teacher", lesson: "Lesson") -> list[Judgement]:
    """One judgement a point of the image."""
    if not len(lesson):
        return []
    inside, mask = teacher(lesson, torch.arange(len(lesson), device=lesson.points.device))
    probs = mask.sigmoid()
    found = []
    for n, stored in enumerate(lesson.masks):
        masks = stored.float() / 255
        found.append(
            Judgement(
                contrast_of(inside[n], masks).cpu().numpy(),
                overlap_of(probs[n], masks).cpu().numpy(),
                lesson.frames[n].numpy(),
                probs[n].cpu().numpy(),
            )
        )
    return found


def contrast_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean log p inside each mask plus mean log (1 − p) in the ring around it, (M,).

    logits: (G, G). masks: (M, G, G) in [0, 1].
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


def on_grid(judgement: Judgement, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The teacher's own mask over the whole image of `size` (H, W), as `grid` (h, w) cells; 0
    outside of its window."""
    h, w = grid
    x0, y0, x1, y1 = judgement.frame.tolist()
    x = ((torch.arange(w) + 0.5) * (size[1] / w) - x0) / (x1 - x0) * 2 - 1
    y = ((torch.arange(h) + 0.5) * (size[0] / h) - y0) / (y1 - y0) * 2 - 1
    places = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1)[None]
    probs = torch.from_numpy(judgement.probs)[None, None]
    return F.grid_sample(probs, places, padding_mode="zeros", align_corners=False)[0, 0]
