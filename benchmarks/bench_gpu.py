"""On a GPU: the training step, a prediction and SAM's prompts beside their peers, bfloat16 on both
sides; what torch.compile gives; how much of the card's matrix rate a step reaches."""

import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import bench_inference
import bench_sam
import bench_train
import torch
from comparison import Row, compare, row
from torch.utils.flop_counter import FlopCounterMode

from sapnet.utils import device as transfer

PEER = "torchvision's Mask R-CNN, R-50, bfloat16 too"
MIB = 1 << 20


def measure(small: bool) -> list[Row]:
    """Without a GPU there are no rows; in small all but what only a GPU can tell, on the CPU."""
    if not torch.cuda.is_available():
        if not small:
            print("there is no GPU here: nothing measured")
            return []
        return times("cpu", small)
    return times("cuda", small)


def times(device: str, small: bool) -> list[Row]:
    rounds = 1 if small else 9
    side, count, batch = (128, 4, 2) if small else (512, 15, 2)
    torch.manual_seed(0)
    scenes = [bench_train.Scene(seed, side, count) for seed in range(batch)]
    ours, solo = (
        awaited(bench_train.ours(scenes, method, device, small))
        for method in ("sapnet++", "consensus")
    )
    theirs = awaited(bench_train.peer(scenes, device))
    what = f"GPU: training step, R-50, {batch} × {side}², {count} objects each"
    against = partial(compare, rounds=rounds, sample=0)
    rows = [
        against(what, ours, theirs, against=PEER),
        against(f"{what}, segmenter alone", solo, theirs, against=PEER),
    ]
    if device != "cpu":
        fast = awaited(bench_train.ours(scenes, "sapnet++", device, small, compile_it=True))
        rows += [
            against(f"{what}, compiled", fast, ours, against="the same, not compiled"),
            memory(f"{what}: peak memory", ours, theirs),
            waits(f"{what}: the host waits", ours, theirs),
            share(f"{what}: its products at the card's own rate", ours),
        ]
    predict, detect = map(awaited, bench_inference.work(small, device))
    name = "GPU: inference, R-50, 100 instances to RLEs"
    rows.append(against(name, predict, detect, against=PEER))
    if device != "cpu":
        rows.append(memory(f"{name}: peak memory", predict, detect))
    points = 2 if small else 30
    with TemporaryDirectory() as folder:
        bags, loop = map(awaited, bench_sam.work(points, Path(folder), device))
        rows.append(
            against(f"GPU: SAM, {points} points to bags", bags, loop, against=bench_sam.AGAINST)
        )
    return rows


def awaited(work: Callable[[], object]) -> Callable[[], None]:
    """The work until the GPU has done it."""

    def whole() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return whole


def memory(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> Row:
    """Each side's most, beyond what it holds between two calls."""

    def most(work: Callable[[], object]) -> float:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / MIB

    return row(name, [(most(ours), most(theirs)) for _ in range(3)], unit="MiB", against=PEER)


def waits(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> Row:
    """How often the host waits within a step: by CUDA's own count, and for the events of
    `sapnet.utils.device`, which CUDA does not count; trees are waited for on threads of their
    own."""

    def counted(work: Callable[[], object]) -> float:
        main, own, mark = threading.get_ident(), 0, transfer._mark

        def counting(device: torch.device) -> Callable[[], None]:
            arrived = mark(device)

            def wait() -> None:
                nonlocal own
                own += threading.get_ident() == main
                arrived()

            return wait

        torch.cuda.set_sync_debug_mode("warn")
        transfer._mark = counting
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                work()
        finally:
            transfer._mark = mark
            torch.cuda.set_sync_debug_mode("default")
        return float(own + sum("synchronizing" in str(warning.message) for warning in seen))

    return row(name, [(counted(ours), counted(theirs))], unit="", against=PEER)


def share(name: str, ours: Callable[[], object]) -> Row:
    """The step's time, and the time that its products alone would take at the rate at which the
    card multiplies large matrices of bfloat16: the ratio is the share of that rate."""
    with FlopCounterMode(display=False) as counter:
        ours()
    side = 8192
    a, b = torch.randn(2, side, side, device="cuda", dtype=torch.bfloat16)
    product = awaited(lambda: a @ b)
    probe = compare("", ours, product, against="", sample=0)
    rate = 2 * side**3 / (probe["peer"] / 1000)
    least = counter.get_total_flops() / rate * 1000
    against = f"its {counter.get_total_flops() / 1e12:.2f} TFLOP at {rate / 1e12:.0f} TFLOP/s"
    return row(name, [(probe["ours"], least)], unit="ms", against=against)
