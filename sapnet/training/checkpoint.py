"""Checkpoints of a training on disk, written atomically."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sapnet.training.averaging import WeightAverage
from sapnet.training.validation import Validation
from sapnet.utils.files import atomic_write

FORMAT = 2
"""1, which had no number, named the parts of the model otherwise."""


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    undecided: int,
    batch_size: int,
    average: Sequence[Tensor] = (),
    validations: Sequence[tuple[float, float]] = (),
) -> None:
    """Write all that a run needs to continue as if it had never stopped.

    Args:
        average: of the weights, see `sapnet.training.averaging`; empty where there is none.
        validations: so far, see `sapnet.training.validation`.
    """
    state: dict[str, Any] = {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "undecided": undecided,
        "batch_size": batch_size,
        "average": list(average),
        "validations": list(validations),
    }
    with atomic_write(path) as file:
        torch.save(state, file)


def load_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    warn: Callable[[str], None] = lambda _message: None,
    average: WeightAverage | None = None,
    validation: Validation | None = None,
) -> tuple[int, int, int]:
    """Take a run up where it was: (steps done, undecided bags so far, batch size).

    (0, 0, 0) where there is none, and where it is an older release's, of which `warn` is told: the
    training then begins again. `average` and `validation` go on, too.
    """
    if not path.exists():
        return 0, 0, 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        warn("the training was begun by another release, and begins again from its first step")
        return 0, 0, 0
    model.load_state_dict(state["model"])
    if average is not None:
        average.load(state.get("average", []))
    if validation is not None:
        validation.load(state.get("validations", []))
    optimizer.load_state_dict(state["optimizer"])
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():  # fused optimizers take the parameter's layout for granted
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter).copy_(value)
    return int(state["step"]), int(state["undecided"]), int(state.get("batch_size", 0))
