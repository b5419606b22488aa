"""A COCO file of the size of train2017, checked as the service checks it, beside its mere decoding.

The file is `large_import.py`'s: 118,000 images and 860,000 annotations with polygons, 494 MiB.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from comparison import Row, row
from large_import import measured, write

DECODE = """
import sys, time
import msgspec
content = open(sys.argv[1], "rb").read()
began = time.perf_counter()
document = msgspec.json.decode(content)
print(time.perf_counter() - began)
assert len(document["annotations"]) == int(sys.argv[2])
"""
MOST_MB = 400


def decoded(path: Path, annotations: int) -> float:
    """Seconds of msgspec alone, in a process of its own, the file being in memory."""
    command = [sys.executable, "-c", DECODE, str(path), str(annotations)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(small: bool) -> list[Row]:
    images, annotations = (50, 400) if small else (118_000, 860_000)
    times, memory = [], []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "instances.json"
        write(path, images, annotations)
        path.read_bytes()  # both find it in the system's cache
        for _ in range(1 if small else 5):
            found = measured("points", path, Path(name))
            times.append((found["seconds"], decoded(path, annotations)))
            memory.append((found["peak_mb"], MOST_MB))
    what = f"{annotations:,} annotations of {images:,} images"
    return [
        row(
            f"{what} checked",
            times,
            unit="s",
            against="msgspec.json.decode of the same bytes",
            goal=0.33,
        ),
        row(f"{what} checked: peak memory", memory, unit="MiB", against="the bar", goal=1),
    ]
