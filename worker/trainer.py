"""The training process, seen from outside: started, listened to, ended.

The protocol is in docs/architecture.md: JSON lines on stdout, logs on stderr, exit code 0 (done),
1 (failed, an `error` line came before) or 3 (stopped on request, checkpoint written).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.leash import leashed

DONE, FAILED, STOPPED = 0, 1, 3

Event = dict[str, Any]


class Trainer:
    """One run of the trainer, in a process group of its own that dies with this thread.

    `events()` is read by the thread that made it; `terminate()` may come from any other.
    """

    def __init__(
        self, command: Sequence[str], *, workdir: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Starts `command` in `workdir`; what it says beside the protocol goes to log.txt there.

        Raises OSError where the command cannot be started at all.
        """
        self._ending = threading.Lock()
        self._log = (workdir / "log.txt").open("ab", buffering=0)
        try:
            self._process = subprocess.Popen(
                leashed(command, sig=signal.SIGKILL, lock=workdir / "trainer.lock"),
                cwd=workdir,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """The protocol's objects as they come, until the process has ended."""
        for line in self._lines():
            event = parse_event(line)
            if event is None:
                self._log.write(line + b"\n")
            else:
                yield event

    def _lines(self) -> Iterator[bytes]:
        """Lines of stdout. Ends with the process, even where a child of it keeps the pipe open."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        buffer = b""
        while True:
            ended = self._process.poll() is not None
            if select.select([pipe], [], [], 0 if ended else 0.2)[0]:
                chunk = os.read(pipe, 1 << 16)
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from lines
                if chunk:
                    continue
            elif not ended:
                continue
            if buffer:
                yield buffer
            return

    def terminate(self, grace_seconds: float) -> None:
        """SIGTERM to the trainer, SIGKILL to its whole group after `grace_seconds`. Idempotent.

        The first goes to the trainer alone: torch takes a DataLoader worker that dies of a signal
        for a crash, and the trainer would fail where it should stop.
        """
        with self._ending:
            self._process.terminate()
            deadline = time.monotonic() + grace_seconds
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            self._kill_group()

    def wait(self) -> int:
        """Its exit code, negative for a signal. Whatever it left running in its group is ended."""
        code = self._process.wait()
        self._kill_group()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        return code

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has gone
            os.killpg(self._process.pid, signal.SIGKILL)


def parse_event(line: bytes) -> Event | None:
    """The protocol's object on this line, or None where it is something else (a stray print)."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
