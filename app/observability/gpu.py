"""Memory and load of the GPUs of this machine, from NVIDIA's own library: no torch, no CUDA."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from sapnet.config.estimate import Gpu


@cache
def _library() -> Any | None:
    """NVML, started once a process; None where there is no driver."""
    import pynvml  # for those who ask alone

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


class Gpus:
    """A collector of prometheus-client; without a GPU it has nothing to say."""

    def __init__(self, library: Any | None = None) -> None:
        self._nvml = library or _library()

    def collect(self) -> Iterator[Metric]:
        """Yield memory and load of each GPU; nothing where there is no driver."""
        if self._nvml is None:
            return
        labels = ["gpu", "name"]
        used = GaugeMetricFamily("sapnet_gpu_memory_used_bytes", "In use by all.", labels=labels)
        total = GaugeMetricFamily("sapnet_gpu_memory_bytes", "There is in all.", labels=labels)
        load = GaugeMetricFamily(
            "sapnet_gpu_busy_ratio", "Share of the last moments with work.", labels=labels
        )
        for index in range(self._nvml.nvmlDeviceGetCount()):
            self._read(index, used, total, load)
        yield from (used, total, load)

    def _read(
        self, index: int, used: GaugeMetricFamily, total: GaugeMetricFamily, load: GaugeMetricFamily
    ) -> None:
        assert self._nvml is not None
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            name = [str(index), str(self._nvml.nvmlDeviceGetName(handle))]
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            used.add_metric(name, memory.used)
            total.add_metric(name, memory.total)
            load.add_metric(name, self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        except self._nvml.NVMLError:  # one that fell off the bus, or does not tell: the rest do
            return


def largest_gpu(library: Any | None = None) -> Gpu | None:
    """The GPU of the most memory that processes of this environment may use, if there is one."""
    nvml = library or _library()
    if nvml is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            gpus.append(Gpu(str(nvml.nvmlDeviceGetName(handle)), memory))
    return max(gpus, key=lambda gpu: gpu.memory, default=None)
