"""A GPU that is not there: tensors of the device "meta" that hold on the CPU what a GPU would hold.

It computes what the CPU computes, and is as strict as a GPU is costly: an operation in which the
host would have to wait for it, or that mixes tensors of both sides, raises. What is copied to the
host without waiting is nonsense until somebody waits, by `sapnet.utils.device`, which is counted.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
# that read a value, or how many values there are, on the host
READING = {
    *("_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "is_nonzero"),
    *("masked_select", "nonzero", "repeat_interleave", "unique_consecutive", "unique_dim"),
}


class HostWaits(AssertionError):
    """On a GPU the host would wait here, or the operation would be refused."""


class There(torch.Tensor):
    """A tensor on the GPU that is not there."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "There":
        like = {"strides": held.stride(), "dtype": held.dtype, "device": DEVICE}
        made: There = torch.Tensor._make_wrapper_subclass(cls, held.size(), **like)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the GPU that is not there")


class PretendedGpu(TorchDispatchMode):
    """Within it the device "meta" is a GPU. waits: how often the host waited for it; threads that
    build trees may do so as they like."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.waits = 0
        self._on_their_way: list[tuple[torch.Tensor, torch.Tensor]] = []
        monkeypatch.setattr("sapnet.utils.device._pinned", lambda tensor: tensor)
        monkeypatch.setattr("sapnet.utils.device._mark", self._mark)
        optimizers = sys.modules["torch.optim.optimizer"]
        supported = "_get_fused_kernels_supported_devices"
        monkeypatch.setattr(optimizers, supported, lambda: [DEVICE.type])

    def take(self, model: nn.Module) -> None:
        """`model.to(device)`, in place."""
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    held = There(parameter.detach())
                    module._parameters[name] = nn.Parameter(held, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = There(buffer)

    def _mark(self, _device: torch.device) -> Callable[[], None]:
        before = list(self._on_their_way)
        main = threading.get_ident()

        def wait() -> None:
            self.waits += threading.get_ident() == main
            for copy, content in before:
                copy.copy_(content)

        return wait

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there = [t for t in tensors if isinstance(t, There)]
        if any(t.device == DEVICE and not isinstance(t, There) for t in tensors):
            raise HostWaits(f"{name} of what was made of a list: its copy blocks")
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        to_host = bool(there) and target is not None and target != DEVICE
        result_is_there = target == DEVICE if target is not None else bool(there)
        if name == "_to_copy" and result_is_there != bool(there):
            if not kwargs.get("non_blocking"):
                raise HostWaits(f"{name} from {tensors[0].device} to {target} blocks")
        elif there:
            self._check(name, args, tensors)
        if target is not None:
            kwargs["device"] = "cpu"
        plain = tree_map(lambda x: x.held if isinstance(x, There) else x, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if to_host:
            nonsense = torch.full_like(result, -(2**62) if not result.is_floating_point() else 1e30)
            self._on_their_way.append((nonsense, result))
            return nonsense
        if func._schema.is_mutable:  # in place
            return args[0] if result is not None else None
        if not result_is_there:
            return result
        return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) else x, result)

    def _check(self, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
        if name in READING:
            raise HostWaits(f"{name} reads a value")
        if any(t.ndim > 0 for t in tensors if not isinstance(t, There)):
            raise HostWaits(f"{name} of tensors on both sides")
        if name.startswith("index") and name not in ("index_add", "index_copy", "index_select"):
            indices = args[1] if isinstance(args[1], list | tuple) else []
            if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
                raise HostWaits(f"{name} by booleans counts them on the host")
