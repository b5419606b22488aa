"""The momentum copy of a segmenter: what pseudo-masks come from, and what is delivered."""

import copy

import torch
from torch import nn

from sapnet.data.sampler import Step


def momentum_copy(segmenter: nn.Module) -> nn.Module:
    """A copy of all that learns; what is frozen is shared, and nothing of it has a gradient."""
    shared = {id(p): p for p in segmenter.parameters() if not p.requires_grad}
    other = copy.deepcopy(segmenter, shared)
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    return other


def decay(step: Step, horizon: float) -> float:
    """How much of the copy stays at a step: min(1 − 1 / (horizon · T), (1 + t) / (10 + t)).

    Before the first step nothing does: it begins as the segmenter does.
    """
    if step.index == 0:
        return 0.0
    return min(1 - 1 / max(horizon * step.total, 1.0), (1 + step.index) / (10 + step.index))


@torch.no_grad()
def follow(segmenter: nn.Module, copied: nn.Module, share: float) -> None:
    """Move the copy towards the segmenter, of which it keeps `share` of itself."""
    for own, other in zip(segmenter.parameters(), copied.parameters(), strict=True):
        if own is not other:
            other.lerp_(own.detach(), 1 - share)
    for (name, value), average in zip(segmenter.named_buffers(), copied.buffers(), strict=True):
        if name.endswith(("running_mean", "running_var")):
            average.lerp_(value, 1 - share)


@torch.no_grad()
def take(copied: nn.Module, segmenter: nn.Module) -> None:
    """Give the segmenter the copy's weights."""
    segmenter.load_state_dict(copied.state_dict())
