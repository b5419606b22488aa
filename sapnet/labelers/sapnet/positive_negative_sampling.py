"""Positive and negative proposals (PNPG): Eq. 4 and Algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from sapnet.config.schema import MilConfig
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.utils.device import to_device


def scaled_copies(
    boxes: Tensor, distance: Tensor, scales: tuple[float, ...], sizes: Tensor
) -> Tensor:
    """Positives, Eq. 4: copies of each b_psm about its centre by (1 ± v / S_dis).

    Args:
        boxes: (N, 4) xyxy.
        distance: (N,) S_dis of the pick.
        scales: the grid of v.
        sizes: (N, 2) (h, w) of each box's image, pixels.

    Returns:
        (N, 2·len(scales), 4), clipped to the image.
    """
    steps = torch.tensor([sign * v for v in scales for sign in (1.0, -1.0)], dtype=boxes.dtype)
    steps = to_device(steps, boxes.device)
    factor = (1 + steps / distance[:, None]).clamp(min=0.1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2 * factor[..., None]
    corner = torch.cat([centre[:, None] - half, centre[:, None] + half], dim=-1)
    limit = sizes.flip(-1).repeat(1, 2)[:, None].to(corner.dtype)
    return torch.minimum(corner.clamp(min=0), limit)


@dataclass(frozen=True)
class Draws:
    """The random draws for a batch's negatives, made before anything is picked.

    Attributes:
        background: (U, 5) RoIs.
        parts: (N, P, 4) numbers in [0, 1), for `part_boxes`.
    """

    background: Tensor
    parts: Tensor

    def to(self, device: torch.device) -> "Draws":
        """The same draws on another device."""
        return Draws(to_device(self.background, device), to_device(self.parts, device))


def draw_negatives(
    bags: Bags, sizes: Tensor, generators: Sequence[torch.Generator], config: MilConfig
) -> Draws:
    """Draw the negatives of a batch (Algorithm 1); none with `negatives` off.

    Args:
        bags: on the CPU.
        sizes: (B, 2) (h, w) of each image's content, pixels of the input.
        generators: one an image.
        config: how many, and how far they may overlap the proposals.
    """
    background = [bags.boxes.new_zeros(0, 5)]
    parts = bags.boxes.new_zeros(len(bags), config.part_negatives if config.negatives else 0, 4)
    if config.negatives:
        for index, (size, generator) in enumerate(zip(sizes.tolist(), generators, strict=True)):
            of_image = bags.image == index
            own = bags.boxes[of_image][bags.valid[of_image]]
            own = torch.cat([own, bags.box[of_image & bags.boxed]])
            boxes = background_boxes(
                config.background_negatives, size, own, config.background_iou, generator
            )
            background.append(with_image(boxes, torch.full((len(boxes),), index)))
            parts[of_image] = torch.rand(parts[of_image].shape, generator=generator)
    return Draws(torch.cat(background), parts)


def background_boxes(
    count: int, size: tuple[int, int], bags: Tensor, max_iou: float, generator: torch.Generator
) -> Tensor:
    """Background negatives: random boxes of the image, kept below `max_iou` with every proposal.

    The paper's text filters these out; its Algorithm 1 and its intent keep them.

    Args:
        size: (h, w).
        bags: (R, 4), all proposals of all bags of the image.

    Returns:
        (U, 4), U <= count.
    """
    h, w = size
    draws = torch.rand(count, 4, generator=generator)
    side = 0.03 + 0.5 * draws[:, 2:] ** 2
    width, height = side[:, 0] * w, side[:, 1] * h
    x1, y1 = draws[:, 0] * (w - width), draws[:, 1] * (h - height)
    boxes = torch.stack([x1, y1, x1 + width, y1 + height], dim=1)
    if len(bags) == 0:
        return boxes
    return boxes[box_iou(boxes, bags).max(dim=1).values < max_iou]


def part_boxes(boxes: Tensor, draws: Tensor, max_iou: float) -> Tensor:
    """Part negatives: smaller boxes inside each b_psm, IoU below `max_iou` to it.

    Inside, IoU is the share of the area, so the share is drawn below the threshold instead of
    drawing and throwing away: every object has its parts.

    Args:
        boxes: (N, 4).
        draws: (N, P, 4) in [0, 1).

    Returns:
        (N, P, 4).
    """
    share = 0.1 * max_iou + 0.85 * max_iou * draws[..., 0]
    # the longer side keeps between share and all of its length, the other what is left
    width = share ** (0.15 + 0.7 * draws[..., 1])
    height = share / width
    size = boxes[:, None, 2:] - boxes[:, None, :2]
    inner = torch.stack([width, height], dim=-1) * size
    corner = boxes[:, None, :2] + draws[..., 2:] * (size - inner)
    return torch.cat([corner, corner + inner], dim=-1)


def with_image(boxes: Tensor, image: Tensor) -> Tensor:
    """(N, 4) or (N, E, 4) boxes and their images (N,) as RoIs (N·E, 5)."""
    flat = boxes if boxes.ndim == 3 else boxes[:, None]
    index = image.to(boxes)[:, None, None].expand(-1, flat.shape[1], 1)
    return torch.cat([index, flat], dim=2).reshape(-1, 5)
