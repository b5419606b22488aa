"""A training on several devices: its process becomes torchrun, which starts one for each of them.

All else is done by one process: predictions and exports have one result to write.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sapnet.config import AUTO
from sapnet.config.resolve import resolve_config
from sapnet.errors import SapnetError
from sapnet.pipeline.spec import RunSpec
from sapnet.utils.devices import VARIABLE, take_devices


def spread(job: Path, execv: Callable[[str, list[str]], Any] = os.execv) -> None:
    """Take the devices that SAPNET_DEVICES names, and become torchrun where a training has several.

    The process id stays: who started this process still ends all of it. Nothing happens where the
    variable is not set, nor in a process that torchrun has started.

    Args:
        job: the job file.
        execv: replaces this process by another program.

    Raises:
        InvalidConfig: SAPNET_DEVICES is no list of devices.
    """
    names = os.environ.get(VARIABLE)
    if not names or "RANK" in os.environ:
        return
    count = min(take_devices(names), most_processes(job))
    if count < 2:
        return
    # torchrun would give each process one thread
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // count, 1)))
    os.environ["SAPNET_LAUNCHER"] = str(os.getpid())  # see `distributed.join`
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    execv(sys.executable, [sys.executable, *torchrun, "-m", "sapnet", "run", str(job)])


def most_processes(job: Path) -> int:
    """How many processes can share a job: 1 for all but a training, whose batch they share.

    A file that cannot be read is 1: who runs it says what is wrong.
    """
    try:
        if "kind" in json.loads(job.read_bytes()):
            return 1
        spec = RunSpec.read(job)
        preset = "gpu" if spec.preset == AUTO else spec.preset  # what auto takes has its batch
        config = resolve_config(spec.method, preset, spec.overrides, spec.proposals.get("kind", ""))
    except (SapnetError, OSError, TypeError, ValueError):
        return 1
    if config.backbone.fpn_norm == "batch":  # its figures are of the whole batch
        return 1
    return min(config.train.batch_size, spec.max_processes or config.train.batch_size)
