"""Positive and negative proposals (PNPG): Eq. 4 and Algorithm 1."""

import torch
from torch import Tensor
from torchvision.ops import box_iou


def scaled_copies(
    boxes: Tensor, distance: Tensor, scales: tuple[float, ...], sizes: Tensor
) -> Tensor:
    """Positives, Eq. 4: copies of each b_psm about its centre by (1 ± v / S_dis).

    boxes: (N, 4) xyxy. distance: (N,) S_dis of the pick. scales: the grid of v. sizes: (N, 2)
    (h, w) of each box's image, pixels. Returns (N, 2·len(scales), 4), clipped to the image.
    """
    steps = boxes.new_tensor([sign * v for v in scales for sign in (1.0, -1.0)])
    factor = (1 + steps / distance[:, None]).clamp(min=0.1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2 * factor[..., None]
    corner = torch.cat([centre[:, None] - half, centre[:, None] + half], dim=-1)
    limit = sizes.flip(-1).repeat(1, 2)[:, None].to(corner.dtype)
    return torch.minimum(corner.clamp(min=0), limit)


def background_boxes(
    count: int, size: tuple[int, int], bags: Tensor, max_iou: float, generator: torch.Generator
) -> Tensor:
    """Background negatives: random boxes of the image, kept below `max_iou` with every proposal.

    The paper's text filters these out; its Algorithm 1 and its intent keep them. size: (h, w).
    bags: (R, 4), all proposals of all bags of the image. Returns (U, 4), U <= count.
    """
    h, w = size
    draws = torch.rand(count, 4, generator=generator).to(bags)
    side = 0.03 + 0.5 * draws[:, 2:] ** 2
    width, height = side[:, 0] * w, side[:, 1] * h
    x1, y1 = draws[:, 0] * (w - width), draws[:, 1] * (h - height)
    boxes = torch.stack([x1, y1, x1 + width, y1 + height], dim=1)
    if len(bags) == 0:
        return boxes
    return boxes[box_iou(boxes, bags).max(dim=1).values < max_iou]


def part_boxes(boxes: Tensor, count: int, max_iou: float, generator: torch.Generator) -> Tensor:
    """Part negatives: smaller boxes inside each b_psm, IoU below `max_iou` to it.

    boxes: (N, 4). Returns (N, count, 4). Inside, IoU is the share of the area, so the share is
    drawn below the threshold instead of drawing and throwing away: every object has its parts.
    """
    draws = torch.rand(len(boxes), count, 4, generator=generator).to(boxes)
    share = 0.1 * max_iou + 0.85 * max_iou * draws[..., 0]
    # the longer side keeps between share and all of its length, the other what is left
    width = share ** (0.15 + 0.7 * draws[..., 1])
    height = share / width
    size = boxes[:, None, 2:] - boxes[:, None, :2]
    inner = torch.stack([width, height], dim=-1) * size
    corner = boxes[:, None, :2] + draws[..., 2:] * (size - inner)
    return torch.cat([corner, corner + inner], dim=-1)
