"""In which numbers the networks compute: float32, or bfloat16 where products are."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from sapnet.types import Precision


def mixed(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """A context in which convolutions and matrix products are bfloat16, as `precision` asks.

    "auto" is bfloat16 where `device` is a GPU that multiplies it. Norms, softmax and sums stay
    float32 (torch.autocast).
    """
    if precision == "float32" or (precision == "auto" and not multiplies_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it is a GPU that does so itself, rather than by way of float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def quick_on_cpu() -> AbstractContextManager[Any]:
    """A context in which a small network at inference computes in bfloat16, where that is quicker.

    That is on processors whose matrix units take it (AMX); elsewhere it stays float32.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(capabilities.get("amx_bf16")))
