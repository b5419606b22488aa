"""The moving average of a model's weights over the last part of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sapnet.data.sampler import Step


class WeightAverage:
    """Exponential moving average of all that a model learns (Polyak and Juditsky 1992).

    Its horizon is a share of the run's steps, so that short runs and long ones are averaged alike.
    Until as many steps are done it is the plain mean, which no first weights bias.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        """Begin with the weights that the model has.

        Args:
            model: whose learned parameters, and running statistics of batch norms.
            share: of the steps, in [0, 1]; 0 averages nothing, and the model's own weights stay.
        """
        self.share = share
        self._own: list[Tensor] = list(_learned(model)) if share else []
        self._average = [value.detach().clone() for value in self._own]

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Take in the weights after a step."""
        if self._own:
            steps = min(step.index + 1.0, max(self.share * step.total, 1.0))
            torch._foreach_lerp_(self._average, [v.detach() for v in self._own], 1 / steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lend the model the averaged weights, for a block that only reads them."""
        own = [value.detach().clone() for value in self._own]
        self.take()
        try:
            yield
        finally:
            _copy(own, self._own)

    def take(self) -> None:
        """Give the model the averaged weights for good."""
        _copy(self._average, self._own)

    def state(self) -> list[Tensor]:
        """All that a resumed run needs; empty where nothing is averaged."""
        return self._average

    def load(self, state: list[Tensor]) -> None:
        """Go on from a `state`; from the model's own weights where it is of another run's kind."""
        same = [value.shape for value in state] == [value.shape for value in self._own]
        _copy(state if same else self._own, self._average)


def _learned(model: nn.Module) -> Iterator[Tensor]:
    yield from (parameter for parameter in model.parameters() if parameter.requires_grad)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            yield buffer


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for value, kept in zip(source, target, strict=True):
        kept.copy_(value)
