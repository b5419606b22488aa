"""The machine's GPU, and copies between it and the host.

A copy to or from ordinary memory makes the host wait for all that the GPU has still to do, and the
GPU then waits for the host; these go through pinned memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sapnet.utils.speed import cores


def describe_machine() -> dict[str, Any]:
    """The machine, as a run's report tells it: its `cores`, and the name of its `gpu` or None."""
    return {"cores": cores(), "gpu": gpu[0] if (gpu := largest_gpu()) else None}


def largest_gpu() -> tuple[str, int] | None:
    """Name, and memory in bytes, of the GPU of the most memory; None where torch has none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    best = max(gpus, key=lambda gpu: int(gpu.total_memory), default=None)
    return (str(best.name), int(best.total_memory)) if best else None


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
