"""The speed of this machine's cores, measured once a process. Imports no torch."""

import os
import time
from functools import cache
from pathlib import Path

import numpy as np

from sapnet.types import FloatArray

REFERENCE_SECONDS = 0.0050
"""Of `_work` on a core of the reference of `sapnet.config.estimate`, which has two."""
_ROUNDS = 5
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of a period that the cores together may work, and those of the period."""


def cores() -> int:
    """Cores that this process may use: those of the machine, or fewer by a container's limit."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(usable or 1, _quota()), 1)


def _quota() -> int:
    """The limit of Linux's control group, in whole cores; a large number where there is none."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return round(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no limit
        return 1 << 20


@cache
def relative_speed() -> float:
    """The speed of all cores together, the reference's is 1; takes a twentieth of a second, once.

    Processor time of one thread is measured, on which other processes tell little. Cores that are
    added bring less than the first ones.
    """
    rng = np.random.default_rng(0)
    matrix = rng.random((60, 60), dtype=np.float32)  # too small for more than one thread
    values = rng.random(1 << 18, dtype=np.float32)
    seconds = min(_work(matrix, values) for _ in range(_ROUNDS))
    return REFERENCE_SECONDS / seconds * (cores() / 2) ** 0.8


def _work(matrix: FloatArray, values: FloatArray) -> float:
    """Seconds of what a training does most: products of matrices, and passes over memory."""
    began = time.thread_time()
    for _ in range(600):
        matrix @ matrix
    for _ in range(20):  # in place: new pages cost as the process before has left its memory
        np.multiply(values, 1.01, out=values)
        np.minimum(values, 1.0, out=values)
    return time.thread_time() - began
