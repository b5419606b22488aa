"""Remaining time, peak memory, and freeing of memory. Imports no torch."""

import ctypes
import resource
import shutil
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from sapnet.errors import DiskFull


class ProgressTimer:
    """Seconds left, from the steps of this process alone (a resumed run did the others before)."""

    def __init__(self) -> None:
        self.began, self.first = time.monotonic(), -1

    def __call__(self, step: int, of: int) -> float:
        """Seconds left after `step` of `of` steps."""
        if self.first < 0:
            self.first = step - 1
        done = max(step - self.first, 1)
        return (time.monotonic() - self.began) / done * (of - step)


def peak_memory_mb() -> int:
    """The most memory this process ever held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def keep_room(folder: Path, reserve: int) -> None:
    """See that some of a disk stays free; others need it too.

    Args:
        folder: on the disk.
        reserve: bytes; 0 is no limit.

    Raises:
        DiskFull: less is free.
    """
    if reserve and (free := shutil.disk_usage(folder).free) < reserve:
        raise DiskFull(
            f"no space is left on the disk of {folder}: {free >> 20} MB are free, "
            f"{reserve >> 20} MB must stay so. Make room, and start it again"
        )


def trim_memory() -> None:
    """Return to the system what the C library keeps of freed memory.

    Batches differ in size, so what fits none of the next piles up. Costs page faults: not for every
    step. Nothing happens where the library is not glibc.
    """
    trim = _glibc_trim()
    if trim is not None:
        trim(0)


@cache
def _glibc_trim() -> Any:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    trim.argtypes = [ctypes.c_size_t]
    return trim
