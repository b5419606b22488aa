"""`sapnet shards` with a generator that is slow, or that ends its process, or is out of memory.

    python odd_shards.py [--sleep SECONDS] [--wait-while FILE] [--die-at ID,ID]
                         [--no-memory-while FILE]

What it proposes is what the generator would propose without.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sapnet.pipeline.events import Event
from sapnet.pipeline.shards import serve
from sapnet.proposals import build_generator
from sapnet.proposals.base import ProposalGenerator
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, RawProposals


class Odd:
    """Another generator, with something odd at each image."""

    def __init__(self, generator: ProposalGenerator, options: argparse.Namespace) -> None:
        self._generator, self._options = generator, options
        self.name, self.calibrated = generator.name, generator.calibrated

    def fingerprint(self) -> str:
        return self._generator.fingerprint()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        gate: Path = self._options.wait_while
        if gate.exists():
            gate.with_name(f"{gate.name}.{os.getpid()}").touch()  # it waits
        while gate.exists():
            time.sleep(0.05)
        time.sleep(self._options.sleep)
        if str(info.id) in self._options.die_at.split(","):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._options.no_memory_while.is_file():
            raise MemoryError
        return self._generator.propose(image, info, annotations)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--wait-while", type=Path, default=Path("no such file"))
    parser.add_argument("--die-at", default="")
    parser.add_argument("--no-memory-while", type=Path, default=Path("no such file"))
    options = parser.parse_args()

    def emit_event(event: Event) -> None:
        print(event.to_json(), flush=True)

    def build(settings: Mapping[str, Any]) -> ProposalGenerator:
        return Odd(build_generator(settings), options)

    return serve(sys.stdin, emit_event, build)


if __name__ == "__main__":
    sys.exit(main())
