"""Ragged bags as tensors: one row a point, padded to the longest bag, with a validity mask."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sapnet.utils.device import to_device


@dataclass(frozen=True)
class Bags:
    """The bags of a whole batch. N points over all images, M the longest bag.

    Attributes:
        boxes: (N, M, 4) float32 xyxy, pixels of the network's input; 0 where not valid.
        valid: (N, M) bool; each row has at least one.
        labels: (N,) int64, 0..K-1.
        image: (N,) int64, index in the batch.
        distance: (N, M) S_dis in (0, 1].
        contains_other_point: (N, M) bool, of another annotation of its own class in the image.
        medoid: (N, M) mean mask IoU to the rest of the bag.
        confidence: (N, M) in [0, 1].
        contrast: (N, M) of the teacher's `ProposalScores`, 0 where there are none.
        overlap: (N, M) of the teacher's `ProposalScores`, 1 where there are none.
        size_rank: (N, M) int64, the place of each mask among its bag's by falling area, 0 first.
        box_fit: (N, M), the log prior of each mask by its object's box; 0 where there is none.
        box: (N, 4) xyxy, the object's box, pixels of the input; 0 where there is none.
        boxed: (N,) bool, whether there is one.
    """

    boxes: Tensor
    valid: Tensor
    labels: Tensor
    image: Tensor
    distance: Tensor
    contains_other_point: Tensor
    medoid: Tensor
    confidence: Tensor
    contrast: Tensor
    overlap: Tensor
    size_rank: Tensor
    box_fit: Tensor
    box: Tensor
    boxed: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Bags":
        """The same bags on another device."""
        return Bags(**{f.name: to_device(getattr(self, f.name), device) for f in fields(self)})

    def rois(self) -> Tensor:
        """(R, 5): batch index and box of every valid proposal, row by row."""
        image = self.image[:, None].expand(self.valid.shape)[self.valid]
        return torch.cat([image[:, None].to(self.boxes.dtype), self.boxes[self.valid]], dim=1)

    def places(self) -> Tensor:
        """(R,) int64: where each of `rois` stands among the N · M."""
        return self.valid.flatten().nonzero().squeeze(1)

    def spread(self, flat: Tensor, places: Tensor) -> Tensor:
        """Put one value a valid proposal, (R, ...), back into rows: (N, M, ...), else zero."""
        rows = flat.new_zeros(self.valid.numel(), *flat.shape[1:]).index_copy(0, places, flat)
        return rows.unflatten(0, self.valid.shape)

    def allowed(self, exclude_foreign: bool) -> Tensor:
        """Which proposals may be picked, (N, M) bool.

        With `exclude_foreign`, a proposal that contains another annotation's point of its own class
        is out, unless every proposal of the bag does.
        """
        if not exclude_foreign:
            return self.valid
        clean = self.valid & ~self.contains_other_point
        return torch.where(clean.any(dim=1, keepdim=True), clean, self.valid)

    def own_box_or(self, boxes: Tensor) -> Tensor:
        """Each object's box, and of those without one what is given, (N, 4)."""
        return torch.where(self.boxed[:, None], self.box, boxes)

    def joined(self, extra: Tensor, distance: Tensor) -> "Bags":
        """The bags with E more boxes each, (N, E, 4), that carry S_dis `distance` (N,)."""
        count = extra.shape[1]
        column = distance[:, None].expand(-1, count)
        none = torch.zeros_like(column)
        last = torch.full_like(column, self.valid.shape[1] + count, dtype=torch.int64)
        return Bags(
            boxes=torch.cat([self.boxes, extra], 1),
            valid=torch.cat([self.valid, torch.ones_like(column, dtype=torch.bool)], 1),
            labels=self.labels,
            image=self.image,
            distance=torch.cat([self.distance, column], 1),
            contains_other_point=torch.cat([self.contains_other_point, none.bool()], 1),
            medoid=torch.cat([self.medoid, none], 1),
            confidence=torch.cat([self.confidence, none], 1),
            contrast=torch.cat([self.contrast, none], 1),
            overlap=torch.cat([self.overlap, torch.ones_like(none)], 1),
            size_rank=torch.cat([self.size_rank, last], 1),
            box_fit=torch.cat([self.box_fit, none], 1),
            box=self.box,
            boxed=self.boxed,
        )
