"""The devices that a job's process may use, by SAPNET_DEVICES. Imports no torch by itself."""

import os
import re

from sapnet.errors import InvalidConfig

VARIABLE = "SAPNET_DEVICES"
ALL = "all"
CPU = "cpu"
_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


def parse_devices(text: str) -> tuple[str, ...] | None:
    """Read a list of devices.

    Args:
        text: "all", or names with commas between them: GPUs as in CUDA_VISIBLE_DEVICES (a number,
            or NVIDIA's id), or "cpu" for each process that is to compute on the CPU.

    Returns:
        The names; None for all GPUs, or the CPU where there is none.

    Raises:
        InvalidConfig: it is no such list.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [ALL]:
        return None
    gpus = [name for name in names if _GPU.fullmatch(name)]
    if len(gpus) != len(set(gpus)) or (gpus != names and set(names) != {CPU}):
        raise InvalidConfig(
            f"{VARIABLE} is no list of devices: {text!r}; it may be {ALL!r}, GPUs ('0,1'), each "
            f"once, or {CPU!r} for each process on the CPU ('cpu,cpu')"
        )
    return tuple(names)


def take_devices(text: str) -> int:
    """Let this process, and those that it starts, see these devices alone; how many they are.

    To be called before anything is done on a GPU.

    Raises:
        InvalidConfig: see `parse_devices`.
    """
    names = parse_devices(text)
    if names is None:
        import torch

        return max(torch.cuda.device_count(), 1)
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if CPU in names else ",".join(names)
    return len(names)
