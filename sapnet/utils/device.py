"""Between the host and a GPU.

A copy to or from ordinary memory makes the host wait for all that the GPU has still to do, and the
GPU then waits for the host; these go through pinned memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. A GPU takes it in turn: the host goes on at once."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return _pinned(tensor).to(device, non_blocking=True)


def async_to_host(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors to the host.

    Returns:
        A function that waits until they are there and gives them, without graph; on a CPU they
        are there.
    """
    copies = [tensor.detach().to("cpu", non_blocking=True) for tensor in tensors]
    device = next((t.device for t in tensors if t.device.type != "cpu"), None)
    wait = _mark(device) if device else None

    def arrived() -> list[Tensor]:
        if wait:
            wait()
        return copies

    return arrived


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory()


def _mark(device: torch.device) -> Callable[[], None]:
    """A place in what the GPU has to do; what is returned waits until it is there."""
    event = torch.cuda.Event(blocking=True)  # whoever waits leaves its core to others
    event.record(torch.cuda.current_stream(device))
    return event.synchronize
