"""Prototypes of the classes and of ground: clusters of pixel features, followed through a run."""

import math

import torch
from torch import Tensor, nn

EPS = 1e-6


def sinkhorn(scores: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Log Q* of Eq. 3, (L, P): the transport between P pixels and L prototypes of equal shares.

    Computed in logarithms, so that no share underflows. Columns sum to 1 / P exactly, rows to
    1 / L the more closely the more rounds there are.

    Args:
        scores: (L, P), cosines.
        epsilon: weight of the entropy.
        rounds: of normalising rows, then columns.
    """
    log_q = scores.double() / epsilon
    for _ in range(rounds):
        log_q = log_q - log_q.logsumexp(1, keepdim=True) - math.log(scores.shape[0])
        log_q = log_q - log_q.logsumexp(0, keepdim=True) - math.log(scores.shape[1])
    return log_q


def unit(features: Tensor, dim: int = -1) -> Tensor:
    """Features of length 1 along a dimension; those of no length stay 0."""
    return features / features.norm(dim=dim, keepdim=True).clamp(min=EPS)


class Prototypes(nn.Module):
    """L prototypes of each of G groups (Eqs 2-5), buffers of the run's checkpoint.

    groups, most, channels: G, the most prototypes of a group, D.
    """

    vectors: Tensor
    updates: Tensor
    counts: Tensor

    def __init__(self, groups: int, most: int, channels: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("vectors", torch.zeros(groups, most, channels))
        self.register_buffer("updates", torch.zeros(groups, dtype=torch.int64))
        self.register_buffer("counts", torch.full((groups,), most, dtype=torch.int64))

    def ready(self, group: int) -> bool:
        """Whether a group has prototypes by now."""
        return bool(self.updates[group] > 0)

    def of(self, group: int) -> Tensor:
        """Those of one group, (L, D), each of length 1."""
        return self.vectors[group, : int(self.counts[group])]

    @torch.no_grad()
    def update(
        self, group: int, pixels: Tensor, fraction: float, epsilon: float, rounds: int
    ) -> None:
        """Move a group's prototypes towards the pixels that each is assigned (Eqs 4 and 5).

        The first pixels that a group sees are its first prototypes. The momentum is that of a plain
        mean until it spans a tenth of the updates that the run is going to make of this group.

        Args:
            group: 0..G-1.
            pixels: (P, D) of length 1; of none, nothing changes.
            fraction: share of the run that is done, in (0, 1].
            epsilon, rounds: see `sinkhorn`.
        """
        count = int(self.counts[group])
        if not len(pixels):
            return
        if not self.ready(group):
            places = torch.arange(count, device=pixels.device) * len(pixels) // count
            self.vectors[group, :count] = pixels[places]
        assigned = sinkhorn(self.of(group) @ pixels.T, epsilon, rounds).argmax(0)
        done = int(self.updates[group])
        expected = done / max(fraction, EPS)
        momentum = min(done / (done + 1), 1 - 1 / max(0.1 * expected, 1.0)) if done else 0.0
        for place in assigned.unique().tolist():
            mean = pixels[assigned == place].mean(0)
            moved = momentum * self.vectors[group, place] + (1 - momentum) * mean
            self.vectors[group, place] = unit(moved)
        self.updates[group] += 1


def semantic_map(features: Tensor, own: Tensor, ground: Tensor | None, tau: float) -> Tensor:
    """M_S of one class (Eq. 1), (h, w) in (0, 1).

    Features of masks end in a ReLU, so that cosines are never negative, and the printed form never
    says ground: here the nearest prototype of ground is subtracted.

    Args:
        features: (D, h, w) of length 1 over D.
        own: (L, D), the class's prototypes.
        ground: (L, D); None is the printed form.
        tau: temperature.
    """
    flat = features.flatten(1)
    score = (own @ flat).amax(0)
    if ground is not None:
        score = score - (ground @ flat).amax(0)
    return (score / tau).sigmoid().reshape(features.shape[1:])
