"""When a training is validated, which of its weights are the best, and when it is no use to go on.

What is measured, and how, is the caller's affair: a function from the model to a figure.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from sapnet.config.schema import TrainConfig
from sapnet.data.sampler import Step
from sapnet.training.averaging import WeightAverage
from sapnet.training.model import JointModel
from sapnet.utils import distributed
from sapnet.utils.files import atomic_write

Validate = Callable[[JointModel, int, int], float]
"""(model, steps done, of how many) -> a figure, the higher the better."""

TOLERANCE = 0.01
"""Of two validations whose figures differ by less, the later one's weights are taken."""


class Validation:
    """The validations of one training.

    Attributes:
        history: (share of the run that was done, figure) of each so far.
        best: the share of the run at which the weights to keep were met.
    """

    def __init__(self, validate: Validate | None, config: TrainConfig, path: Path) -> None:
        """Begin without a figure.

        Args:
            validate: measures the model; None never validates.
            config: of the training.
            path: of the file for the best weights.
        """
        self._validate, self._config, self._path = validate, config, path
        self.history: list[tuple[float, float]] = []
        self.best = 0.0

    def __call__(self, model: JointModel, step: Step, average: WeightAverage) -> None:
        """Validate after a step, where it is time to; of several processes the main one does.

        The weights are the averaged ones, and kept where they are the best so far.
        """
        done = step.index + 1
        if self._validate is None or not self._due(step):
            return
        figure = 0.0
        with distributed.together(), average.applied():
            if distributed.is_main():
                model.eval()
                try:
                    figure = self._validate(model, done, step.total)
                finally:
                    model.train()
                if figure >= self._peak - TOLERANCE:
                    with atomic_write(self._path) as file:
                        torch.save(model.state_dict(), file)
        figure = float(distributed.global_sum(torch.tensor(figure, dtype=torch.float64)))
        self._note(done / step.total, figure)

    @property
    def over(self) -> bool:
        """Whether no better figure came for as long as `train.patience` allows."""
        patience = self._config.patience
        if not patience or not self.history:
            return False
        return self.history[-1][0] - self.best >= patience - 1e-9

    @torch.no_grad()
    def take_best(self, model: JointModel) -> None:
        """Give the model the best weights, where others came after them."""
        if self.history and self.history[-1][0] > self.best and self._path.exists():
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            model.load_state_dict(state)

    def load(self, history: list[tuple[float, float]]) -> None:
        """Go on from the `history` of a checkpoint."""
        self.history, self.best = [], 0.0
        for share, figure in history:
            self._note(share, figure)

    def _note(self, share: float, figure: float) -> None:
        if figure >= self._peak - TOLERANCE:
            self.best = share
        self.history.append((share, figure))

    @property
    def _peak(self) -> float:
        return max((figure for _, figure in self.history), default=-math.inf)

    def _due(self, step: Step) -> bool:
        """At the ends of epochs, of so many that `train.validations` suffice; and at the end."""
        done, per_epoch = step.index + 1, step.per_epoch
        epochs = max(math.ceil(step.total / (per_epoch * self._config.validations)), 1)
        return done % (epochs * per_epoch) == 0 or done == step.total
