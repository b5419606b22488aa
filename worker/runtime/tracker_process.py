"""A tracker of experiments as a process: what it is given, what it answers, and its end.

The process is `python -m sapnet.utils.tracking`, whose protocol is in its docstring. Whatever a
tracker's package does (wait for a server, start threads, take memory), it does there.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.observability.log_text import presentable
from worker.runtime.parent_death import spawn_with_parent

COMMAND = (sys.executable, "-m", "sapnet.utils.tracking")
_ERROR_BYTES = 2_000


class TrackerFailed(Exception):
    """The tracker has not taken what it was given; says why."""


class TrackerProcess:
    """Starts the process, which dies with the thread that makes this. A context manager."""

    def __init__(self, folder: Path, timeout: float) -> None:
        """folder: where it works. timeout: seconds for each answer."""
        folder.mkdir(parents=True, exist_ok=True)
        self._timeout, self._buffer = timeout, b""
        self._log = folder / "tracker.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                spawn_with_parent(COMMAND, sig=signal.SIGKILL),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> "TrackerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Give it something, and return its answer.

        Raises:
            TrackerFailed: it says that it failed, it ended, or it took too long.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise TrackerFailed(self._last_words()) from None
        answer = self._line(time.monotonic() + self._timeout)
        if "error" in answer:
            raise TrackerFailed(str(answer["error"]))
        return answer

    def _line(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TrackerFailed(f"it has not answered within {self._timeout:g} seconds")
            if select.select([pipe], [], [], left)[0]:
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    raise TrackerFailed(self._last_words())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self, seconds: float = 10.0) -> None:
        """Let it close its run; after so many seconds it is killed, with all that it started."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _last_words(self) -> str:
        text = self._log.read_bytes()[-_ERROR_BYTES:].decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return presentable(lines[-1], 500) if lines else "it ended without a word"
