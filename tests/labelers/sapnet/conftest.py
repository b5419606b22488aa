"""Random bags, and the plain geometry that the references share."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sapnet.labelers.sapnet.bag_batch import Bags

SIDE = 96.0


def make_bags(
    seed: int, lengths: Sequence[int] = (5, 1, 8, 3), classes: int = 3, images: int = 2
) -> Bags:
    """Ragged bags on whole pixels; boxes, medoids and confidences recur, so that ties happen."""
    generator = torch.Generator().manual_seed(seed)
    count, longest = len(lengths), max(lengths, default=1)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    corner = (draw(count, longest, 2) * 40).floor()
    boxes = torch.cat([corner, corner + 4 + (draw(count, longest, 2) * 50).floor()], dim=-1)
    valid = torch.arange(longest)[None] < torch.tensor(list(lengths))[:, None].reshape(-1, 1)
    boxes[:, 1::3] = boxes[:, :1]  # some share the first one's box
    return Bags(
        boxes=boxes * valid[..., None],
        valid=valid,
        labels=torch.randint(classes, (count,), generator=generator),
        image=torch.arange(count) * images // max(count, 1),
        distance=torch.where(draw(count, longest) < 0.3, 0.9, 1.0),
        contains_other_point=(draw(count, longest) < 0.3) & valid,
        medoid=(draw(count, longest) * 4).round() / 4 * valid,
        size_rank=torch.stack([torch.randperm(longest, generator=generator) for _ in lengths])
        if count
        else torch.zeros(0, 1, dtype=torch.int64),
        confidence=(draw(count, longest) * 4).round() / 4 * valid,
        contrast=-(draw(count, longest) * 4).round() / 4 * valid,
        overlap=(draw(count, longest) * 4).round() / 4 * valid,
        box_fit=torch.zeros(count, longest),
        box=torch.zeros(count, 4),
        boxed=torch.zeros(count, dtype=torch.bool),
    )


def shuffle(bags: Bags, seed: int) -> tuple[Bags, Tensor]:
    """Each bag's valid proposals in another order; also new place -> old place, (N, M)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(bags.valid.shape[1]).repeat(len(bags), 1)
    for row, length in zip(order, bags.valid.sum(1).tolist(), strict=True):
        row[:length] = torch.randperm(length, generator=generator)
    changed = {f.name: getattr(bags, f.name) for f in fields(bags)}
    for name, value in changed.items():
        if value.ndim >= 2 and name != "box":
            changed[name] = torch.stack([v[o] for v, o in zip(value, order, strict=True)])
    return Bags(**changed), order


def box_area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (box_area(a) + box_area(b) - shared)


def ranking(bags: Bags, scores: Tensor, allowed: Tensor, n: int) -> list[int]:
    """The allowed proposals of bag n, best first: score, medoid, larger mask (its rank)."""
    return sorted(
        (m for m in range(allowed.shape[1]) if allowed[n, m]),
        key=lambda m: (-float(scores[n, m]), -float(bags.medoid[n, m]), int(bags.size_rank[n, m])),
    )


@pytest.fixture
def tools() -> SimpleNamespace:
    """The functions above, since test modules cannot import each other."""
    return SimpleNamespace(
        make_bags=make_bags,
        shuffle=shuffle,
        box_area=box_area,
        box_iou=box_iou,
        ranking=ranking,
        SIDE=SIDE,
    )


@pytest.fixture
def draw() -> Callable[..., Any]:
    """draw(*shape): normal numbers in float64, the same in each test."""
    generator = torch.Generator().manual_seed(11)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
