"""Instance to semantic (I2S): which cells belong together, and what they tell each other."""

import torch
from torch import Tensor

EPS = 1e-6


def affinity(embedding: Tensor) -> Tensor:
    """Â = σ(EᵀE / √D), (L, L) in (0, 1), of the L = h·w cells of an embedding (D, h, w)."""
    flat = embedding.flatten(1).float()
    return (flat.T @ flat / flat.shape[0] ** 0.5).sigmoid()


def near(shape: tuple[int, int], reach: int, device: torch.device) -> Tensor:
    """Which cells of an (h, w) grid are at most `reach` apart in x and in y, (L, L) bool."""
    ys, xs = (torch.arange(side, device=device) for side in shape)
    rows = (ys[:, None] - ys).abs() <= reach
    columns = (xs[:, None] - xs).abs() <= reach
    both = rows[:, None, :, None] & columns[None, :, None, :]
    return both.reshape(shape[0] * shape[1], -1)


def affinity_loss(embedding: Tensor, groups: Tensor, reach: int) -> Tensor:
    """L_I2S: mean of 1 − Â over pairs of one group, plus mean of Â over pairs of two.

    Args:
        embedding: (D, h, w), with graph.
        groups: (h, w) int64, whose cell it is; below 0 where that is not known.
        reach: of a pair, in cells, in x and in y.

    Returns:
        A scalar in [0, 2], 0 with a graph where there is no pair.
    """
    flat = groups.flatten()
    shape = (embedding.shape[1], embedding.shape[2])
    pairs = near(shape, reach, embedding.device).fill_diagonal_(False)
    pairs = pairs & (flat >= 0)[:, None] & (flat >= 0)
    same = flat[:, None] == flat
    values = affinity(embedding)
    together, apart = pairs & same, pairs & ~same
    pull = ((1 - values) * together).sum() / together.sum().clamp(min=1)
    push = (values * apart).sum() / apart.sum().clamp(min=1)
    return pull + push


def spread(classes: Tensor, embedding: Tensor, exponent: float, reach: int) -> Tensor:
    """C ← rownorm(Â^∘β) · C, over the cells within reach of each.

    Args:
        classes: (C, h, w), probabilities of each cell's classes.
        embedding: (D, h, w).
        exponent: β.
        reach: in cells.

    Returns:
        (C, h, w) float32.
    """
    shape = (classes.shape[1], classes.shape[2])
    weights = affinity(embedding) ** exponent * near(shape, reach, classes.device)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=EPS)
    return (classes.flatten(1).float() @ weights.T).reshape(classes.shape)
