"""A photograph of 640×480 on a small machine: the preset `cpu`, and YOLO11s-seg.

Ultralytics is under the AGPL and no dependency of anything here. Install it and what it needs
somewhere else (`pip install --target DIR ultralytics`) and name the folder as ULTRALYTICS=DIR; it
then runs in a process of its own. Without it there is no row.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from bench_postprocess import scene
from comparison import Row, row

from sapnet.config.resolve import resolve_config
from sapnet.data.resize import input_size
from sapnet.data.samples import to_tensor
from sapnet.segmenters.checkpoint import padded
from sapnet.segmenters.solov2 import decode
from sapnet.segmenters.solov2.optimize import make_ready
from sapnet.training.model import build_model

CLASSES, SIZE = 80, (480, 640)
PEER = """
import sys, time
sys.path.append(sys.argv[1])
import numpy as np
from ultralytics import YOLO
model = YOLO("yolo11s-seg.yaml", verbose=False)
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
for line in sys.stdin:
    began = time.perf_counter()
    model.predict(image, imgsz=640, device="cpu", verbose=False)
    print("took", time.perf_counter() - began, flush=True)
"""


@contextmanager
def peer(folder: str) -> Iterator["Peer"]:
    command = [sys.executable, "-c", PEER, folder]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    yield Peer(process)
    process.communicate(timeout=60)


class Peer:
    """Seconds of a prediction in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answers = process.stdin, process.stdout

    def __call__(self) -> float:
        self._ask.write("\n")
        self._ask.flush()
        return next(float(x.split()[1]) for x in self._answers if x.startswith("took "))


def measure(small: bool) -> list[Row]:
    """Weights are random. YOLO finds nothing then and has nothing to do after its network; ours
    runs its network, then decodes a made scene of 100 candidates."""
    config = resolve_config()
    model, _ = build_model(config, CLASSES, None, 0, allow_download=False)
    segmenter = make_ready(model.segmenter)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    size = input_size(SIZE, max(config.data.short_sides), config.data.max_long_side)
    shape = padded(to_tensor(image, size)).shape[2:]
    found = scene((shape[0], shape[1]), config.solo.mask_channels, 100, config.solo)

    @torch.inference_mode()
    def ours() -> float:
        began = time.perf_counter()
        pixels = padded(to_tensor(image, size)).contiguous(memory_format=torch.channels_last)
        segmenter(pixels)
        assert len(decode(found, [size], [SIZE], config.solo)[0]) > 50
        return time.perf_counter() - began

    folder = os.environ.get("ULTRALYTICS")
    if not folder:
        print(f"no ultralytics (set ULTRALYTICS to its folder); ours alone: {ours():.3f} s")
        return []
    with peer(folder) as theirs:
        pairs = []
        for turn in range(3 if small else 17):
            if turn % 2:
                own, other = ours(), theirs()
            else:
                other, own = theirs(), ours()
            pairs.append((own, other))
    return [
        row(
            "a photograph of 640×480, preset cpu, 100 candidates",
            pairs[2:],  # the first ones warm up
            unit="ms",
            scale=1000,
            against="YOLO11s-seg at 640, which finds none",
            goal=1,
        )
    ]
