"""Ours and a peer's, in turns in one run: a row of medians, their ratio, and how far it spreads."""

import contextlib
import gc
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

PACKAGES = ("torch", "torchvision", "numpy", "numba", "pycocotools", "faster-coco-eval")


class Row(TypedDict):
    """One comparison. ours, peer: medians in `unit`, the smaller the better. ratio: peer / ours.
    spread: the interquartile range of the rounds' own ratios over their median. goal: the ratio
    that is aimed at, None where there is none. against: who the peer is, in words."""

    name: str
    ours: float
    peer: float
    ratio: float
    spread: float
    goal: float | None
    unit: str
    against: str
    rounds: int


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    against: str,
    goal: float | None = None,
    rounds: int = 9,
    sample: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Time both in turns, who goes first changing with the round, after one call each to warm up.

    A sample is as many calls as fill `sample` seconds, at least one. So a busy machine slows both
    sides of a round alike, and the ratio stays.
    """
    calls = [(work, _calls(work, sample, clock)) for work in (ours, peer)]
    pairs = []
    for turn in range(rounds):
        seconds = [0.0, 0.0]
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            seconds[side] = _sample(*calls[side], clock)
        pairs.append((seconds[0], seconds[1]))
    return row(name, pairs, unit="ms", scale=1000, against=against, goal=goal)


def row(
    name: str,
    pairs: list[tuple[float, float]],
    *,
    unit: str,
    against: str,
    goal: float | None = None,
    scale: float = 1.0,
) -> Row:
    """The row of measured (ours, peer), a pair a round; for what is no time, such as memory."""
    ours, peer = (scale * statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [theirs / own if own else math.inf for own, theirs in pairs]
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return Row(
        name=name,
        ours=ours,
        peer=peer,
        ratio=peer / ours if ours else math.inf,
        spread=(high - low) / middle,
        goal=goal,
        unit=unit,
        against=against,
        rounds=len(pairs),
    )


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many threads, for both sides."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, Any]:
    """Where and with what: processor, cores, the load that others make, versions."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(x for x in lines if x.startswith("model name")).split(":")[1].strip()
    return {
        "cpu": f"{cpu} ({platform.machine()})",
        "gpu": _gpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # what measures without it is not to load it
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def commit() -> str:
    """The checked-out commit, with -dirty where files have changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    where = Path(__file__).parent
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _calls(work: Callable[[], object], sample: float, clock: Callable[[], float]) -> int:
    work()  # compiles, fills caches, allocates
    return max(1, math.ceil(sample / max(_sample(work, 1, clock), 1e-9))) if sample else 1


def _sample(work: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    """Seconds a call."""
    gc.collect()
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
