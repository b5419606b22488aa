"""One step: forward, losses, backward, update. It knows neither labeler nor segmenter."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sapnet.data.batch import Batch, make_batch
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample, largest
from sapnet.errors import NonFiniteLoss
from sapnet.training.model import JointModel
from sapnet.training.optim import set_learning_rate
from sapnet.utils import distributed
from sapnet.utils.device import async_to_host


@dataclass(frozen=True)
class StepMetrics:
    """The losses of a step by name, and how many bags had no best proposal, of the whole batch.

    The values may still be on their way from a GPU; `read` waits for them.
    """

    step: Step
    names: tuple[str, ...]
    values: Callable[[], list[Tensor]]

    def read(self) -> tuple[dict[str, float], int]:
        """Raises NonFiniteLoss."""
        *losses, undecided = self.values()[0].tolist()
        for name, value in zip(self.names, losses, strict=True):
            if not abs(value) < float("inf"):
                raise NonFiniteLoss(name, self.step.index, value)
        return dict(zip(self.names, losses, strict=True)), int(undecided)


def training_step(
    model: JointModel,
    optimizer: torch.optim.Optimizer,
    samples: list[Sample],
    step: Step,
    generators: list[torch.Generator],
) -> StepMetrics:
    """Learn from a batch, of which `samples` are this process's share.

    Args:
        generators: one a sample.
    """
    height, width = distributed.global_max(*largest(samples))
    batch = make_batch(samples, model.device, generators, (height, width))
    losses, undecided = all_losses(model, batch, step)
    values = [value.detach().to(model.device, torch.float32) for value in losses.values()]
    values.append(undecided.detach().to(model.device, torch.float32))
    totals = async_to_host(distributed.global_sum(torch.stack(values)))
    set_learning_rate(optimizer, model.config.train, step)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    distributed.sum_gradients(model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), model.config.train.clip_norm)
    optimizer.step()
    return StepMetrics(step, tuple(losses), totals)


def all_losses(model: JointModel, batch: Batch, step: Step) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of the segmenter and of the labeler.

    Returns:
        The terms by name, each with its weight in it; and how many objects were undecided.
    """
    result = model(batch, step)
    losses, objects = model.segmenter.loss(result.output, result.labels)
    losses = {**losses, **result.labels.losses, **result.labels.mask_losses(objects)}
    return losses, result.labels.undecided
