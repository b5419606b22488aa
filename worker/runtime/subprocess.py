"""The training process, seen from outside: started, listened to, ended.

The protocol is in docs/architecture.md: JSON lines on stdout, logs on stderr, and the exit codes of
`sapnet.pipeline.contract`.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.runtime.parent_death import spawn_with_parent

TICK_SECONDS = 0.2

Event = dict[str, Any]


class Trainer:
    """One run of the trainer, in a process group of its own that dies with this thread."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        workdir: Path,
        should_stop: Callable[[], bool] = lambda: False,
        grace_seconds: float = 8.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `command` in `workdir`; what it says beside the protocol goes to log.txt there.

        should_stop: asked some times a second while the events are read. Once it is true the
        trainer gets SIGTERM, and after `grace_seconds` its whole group gets SIGKILL.
        environment: variables beside those of this process.
        """
        self._should_stop, self._grace = should_stop, grace_seconds
        self._deadline: float | None = None
        with (workdir / "log.txt").open("ab", buffering=0) as log:
            self._process = subprocess.Popen(
                spawn_with_parent(command, sig=signal.SIGKILL, lock=workdir / "trainer.lock"),
                cwd=workdir,
                env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._log = workdir / "log.txt"

    @property
    def pid(self) -> int:
        """Process id of the trainer."""
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """The protocol's objects as they come, until the process has ended."""
        for line in self._lines():
            event = parse_event(line)
            if event is None:
                with self._log.open("ab") as log:
                    log.write(line + b"\n")
            else:
                yield event

    def _lines(self) -> Iterator[bytes]:
        """Lines of stdout. Ends with the process, even where a child of it keeps the pipe open."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        buffer, open_ = b"", True
        while True:
            self._stop_if_requested()
            ended = self._process.poll() is not None
            ready = open_ and select.select([pipe], [], [], 0 if ended else TICK_SECONDS)[0]
            if ready:
                chunk = os.read(pipe, 1 << 16)
                open_ = bool(chunk)
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from lines
            elif ended:
                break
            elif not open_:  # it closed its stdout and still runs
                time.sleep(TICK_SECONDS)
        if buffer:
            yield buffer

    def _stop_if_requested(self) -> None:
        """Send the trainer the first signal, to it alone.

        Torch takes a DataLoader worker that dies of a signal for a crash, and the trainer would
        fail where it should stop.
        """
        if self._deadline is None:
            if self._should_stop():
                self._deadline = time.monotonic() + self._grace
                self._process.terminate()
        elif time.monotonic() > self._deadline:
            self._kill_group()

    def wait(self) -> int:
        """Its exit code, negative for a signal. Whatever it left running in its group is ended."""
        code = self._process.wait()
        self._kill_group()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def kill(self) -> None:
        """End it and its group at once, whatever it is doing."""
        self._kill_group()
        self.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has gone
            os.killpg(self._process.pid, signal.SIGKILL)


def parse_event(line: bytes) -> Event | None:
    """The protocol's object on this line, or None where it is something else (a stray print).

    NaN and infinities, which JSON does not know, become null.
    """
    try:
        event = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
