"""Which images make which step: a pure function of the seed and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True)
class Step:
    """A step's position in the run: its index, of how many, and the epoch's length."""

    index: int
    total: int
    per_epoch: int

    @property
    def fraction(self) -> float:
        """The share of the run that lies before it, in [0, 1)."""
        return self.index / max(self.total, 1)

    @property
    def next(self) -> "Step":
        """The step after this one."""
        return replace(self, index=self.index + 1)


class Sampler:
    """Which images make which step, and how each is drawn: a pure function of (seed, step).

    A run that is resumed at a step sees what the unbroken one would have seen. upright: of each
    image, where known; a batch is then of upright or of lying ones (one of an epoch may be mixed),
    since both together are padded to squares, and batches come in any order.
    """

    def __init__(
        self, *, count: int, batch_size: int, seed: int, upright: Sequence[bool] = ()
    ) -> None:
        self.count, self.batch_size, self.seed = count, min(batch_size, count), seed
        self.upright = np.array(upright, dtype=bool)
        self.steps_per_epoch = -(-count // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Indices of the images of a step, `batch_size` of them.

        A step of an epoch that is not full is filled with others of the epoch: its first ones, or
        some of the same orientation.
        """
        epoch, part = divmod(step, self.steps_per_epoch)
        draw = np.random.default_rng((self.seed, epoch))
        order = draw.permutation(self.count)
        if self.upright.any():
            order = order[np.argsort(self.upright[order], kind="stable")]
            part = int(draw.permutation(self.steps_per_epoch)[part])
            first = min(part * self.batch_size, self.count - self.batch_size)
        else:
            first = part * self.batch_size
        places = np.arange(first, first + self.batch_size) % self.count
        return [int(i) for i in order[places]]

    def generator(self, step: int, place: int = 0) -> torch.Generator:
        """The generator of what else is drawn in a step.

        Args:
            step: index in the run.
            place: 0 for the whole step, i + 1 for its i-th image, so that an image sees the same
                draws whichever process loads it.
        """
        mixed = np.random.SeedSequence((self.seed, step, place)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed >> 1))
