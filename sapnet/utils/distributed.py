"""Several processes, one step: what torchrun starts trains as one process would.

Each process takes its share of every batch. A loss divides its own sum by what all of them count
(`global_sum`), so that the gradients of the processes add up to that of the whole batch, whatever
share each has; `sum_gradients` adds them. Alone, every function here returns what it is given.

Not DistributedDataParallel: it averages over processes, as if their shares were equal; it wants
every parameter in each step, or a search of the graph for those left out (a method without MIL
has whole heads of them); and an update must stay what one process makes, which leaves a parameter
without any gradient alone, decay and momentum too. What it would give is that sums travel while
the backward pass still runs.

Counts and agreements travel as CPU tensors over gloo, gradients over NCCL where there is CUDA.
"""

import atexit
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from sapnet.errors import ATTEMPT_FAILED, InvalidConfig, SapnetError, Stopped, is_out_of_memory

BUCKET = 1 << 24  # numbers that travel at a time: 64 MB
# Not how long a dead process is waited for, torchrun ends the others: rank 0 may make proposals
# for days, and the others wait for it.
PATIENCE = timedelta(days=30)

LAUNCHER = "SAPNET_LAUNCHER"
"""Environment variable: the process id of the torchrun whose processes shall not outlive it."""
_PR_SET_PDEATHSIG = 1

Number = TypeVar("Number", int, Tensor)
Result = TypeVar("Result")


class FailedElsewhere(SapnetError):
    """Another process of the run failed. `reason` and words are those of the error there."""

    def __init__(self, rank: int, reason: str, words: str) -> None:
        self.rank, self.reason = rank, reason
        super().__init__(f"process {rank}: {words}")


def join() -> None:
    """Find the processes that torchrun started beside this one, for the rest of its life.

    Does nothing where it is the only one.

    Raises:
        InvalidConfig: a process has no GPU and others have.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or processes() > 1:
        return
    _end_with_launcher()
    # It keeps the group that it finds when it is imported, as default of its functions. Were that
    # this one, the group's threads would outlive it, and one that lets go of a tensor while the
    # interpreter ends aborts the process.
    import torch.distributed.nn.functional

    cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    atexit.register(distributed.destroy_process_group)
    with together():
        local, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if cuda and local >= count:
            raise InvalidConfig(f"process {local} of this machine has no GPU: it has {count}")
        if cuda:
            torch.cuda.set_device(local)


def _end_with_launcher() -> None:
    """Have the kernel kill this process when the torchrun that SAPNET_LAUNCHER names is killed.

    torchrun gives each process a session of its own, so that nobody else would end it.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(launcher):  # it ended before we asked
        sys.exit(1)


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error says that another process of the run ended, and left this one alone."""
    return (
        processes() > 1
        and isinstance(error, RuntimeError)
        and re.search("gloo|nccl", f"{error}", re.IGNORECASE) is not None
    )


def processes() -> int:
    """The number of processes; 1 before `join`."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def is_main() -> bool:
    """Whether it is the one that writes results and speaks."""
    return rank() == 0


def device() -> torch.device:
    """CUDA where there is any (each process has its own, see `join`), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def share(items: Sequence[Result]) -> Sequence[Result]:
    """This process's share of a batch; empty where there are more processes than items."""
    return items[rank() :: processes()]


def global_sum(value: Number) -> Number:
    """The sum over all processes, of a count or of a tensor. No gradient flows through it."""
    if processes() == 1:
        return value
    if isinstance(value, int):
        return int(global_sum(torch.tensor(value)))
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def gathered(own: Sequence[Result]) -> list[Result]:
    """What all processes have of a batch, in the order of the batch; `own` as `share` made it."""
    if processes() == 1:
        return list(own)
    every: list[Any] = [None] * processes()
    distributed.all_gather_object(every, list(own))
    total = sum(map(len, every))
    return [every[place % len(every)][place // len(every)] for place in range(total)]


def global_max(*values: int) -> tuple[int, ...]:
    """The largest over all processes of each of `values`."""
    if processes() == 1:
        return values
    largest = torch.tensor(values)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return tuple(largest.tolist())


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    return bool(global_max(int(flag))[0])


@contextmanager
def together() -> Iterator[None]:
    """Let a block that each process runs by itself fail in all where it fails in one.

    There the error itself is raised, elsewhere Stopped for a Stopped, else FailedElsewhere. No
    other function that waits for the others may be called in it.
    """
    if processes() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    if any_of(error is not None):
        gathered: list[Any] = [None] * processes()
        distributed.all_gather_object(gathered, error and _reason_and_words(error))
        raise error or _first(gathered)


def main_first(work: Callable[[], Result]) -> Result:
    """The result of `work`: the main process does it first, the others then find what it left."""
    results = []
    for turn in (True, False):
        with together():
            if is_main() is turn:
                results.append(work())
    return results[0]


def start_alike(model: nn.Module, step: int) -> None:
    """Give every process the main one's weights.

    Raises:
        InvalidConfig: a process has another model, or takes up the run at another step.
    """
    if processes() == 1:
        return
    entries = model.state_dict().items()
    state = {name: value for name, value in entries if isinstance(value, Tensor)}
    own = step, {name: tuple(value.shape) for name, value in state.items()}
    gathered: list[Any] = [None] * processes()
    distributed.all_gather_object(gathered, own)
    for index, other in enumerate(gathered):
        if other != gathered[0]:
            what = "checkpoint" if other[0] != gathered[0][0] else "backbone"
            raise InvalidConfig(
                f"process {index} finds another {what} than process 0: all must see the same work "
                "folder and the same files of weights"
            )
    for value in state.values():
        distributed.broadcast(value, src=0)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes; None where no process has one."""
    if processes() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    owners = global_sum(torch.tensor([p.grad is not None for p in trained], dtype=torch.int32))
    used = [p for p, count in zip(trained, owners.tolist(), strict=True) if count]
    for bucket in _buckets(used):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        sums = flat.split([p.numel() for p in bucket])
        for parameter, total in zip(bucket, sums, strict=True):
            # in the parameter's own layout, which fused optimizers take for granted
            parameter.grad = torch.empty_like(parameter).copy_(total.view_as(parameter))


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """In order, each of BUCKET numbers or a parameter more."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _reason_and_words(error: Exception) -> tuple[str, str]:
    if isinstance(error, SapnetError):
        return error.reason, f"{error}"
    reason = ATTEMPT_FAILED if is_out_of_memory(error) else SapnetError.reason
    return reason, f"{type(error).__name__}: {error}"


def _first(gathered: Sequence[tuple[str, str] | None]) -> SapnetError:
    """The error of the first process that has one."""
    index, (reason, words) = next((i, t) for i, t in enumerate(gathered) if t is not None)
    return Stopped(words) if reason == Stopped.reason else FailedElsewhere(index, reason, words)
