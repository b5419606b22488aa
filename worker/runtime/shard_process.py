"""The process that works on shards: it stays between them, so that it loads what it needs once.

It is `python -m sapnet.cli shards`, whose protocol is in `sapnet/pipeline/shards.py`. It keeps no
state of its own, so it is stopped by SIGKILL.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.runtime.parent_death import spawn_with_parent
from worker.runtime.subprocess import TICK_SECONDS, Event, parse_event

DONE = ("shard_done", "planned")
"""Events after which the process waits for the next shard."""
END_SECONDS = 5.0


class ProcessDied(Exception):
    """The process ended without a word. `code` is that of subprocess.Popen."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class ShardProcess:
    """Starts the process, which dies with the thread that makes this. A context manager."""

    def __init__(
        self, command: Sequence[str], *, workdir: Path, environment: Mapping[str, str]
    ) -> None:
        """workdir: where it works, and whose log.txt takes what it says beside the protocol."""
        self._buffer = b""
        # Those that share a machine's cores must not spin while they wait for their own threads.
        variables = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **environment}
        with (workdir / "log.txt").open("ab", buffering=0) as log:
            self._process = subprocess.Popen(
                spawn_with_parent(command, sig=signal.SIGKILL),
                cwd=workdir,
                env={**variables, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> "ShardProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be given a shard."""
        return self._process.poll() is None

    def ask(
        self, spec: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Generator[Event | None, None, None]:
        """Give it a shard, and yield what it says until it has answered.

        A process that has not, however this ends, is killed: nobody may take the rest for the
        answer to what comes next. So is one that has answered with an error.

        Args:
            should_stop: asked some times a second. Once it is true there is no answer.

        Yields:
            An event, or None where it says nothing for a moment. After the last one it is done, or
            it was to stop.

        Raises:
            ProcessDied: it ended without an answer.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the reading below says how it ended
            self._process.stdin.write(json.dumps(spec).encode() + b"\n")
            self._process.stdin.flush()
        done = False
        try:
            while not done and not should_stop():
                line = self._line()
                event = None if line is None else parse_event(line)
                yield event
                if event is not None and event["event"] == "error":
                    return
                done = event is not None and event["event"] in DONE
        finally:
            if not done:
                self.kill()

    def _line(self) -> bytes | None:
        """The next line; None where there is none yet.

        Raises:
            ProcessDied: there will be none.
        """
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if b"\n" not in self._buffer and select.select([pipe], [], [], TICK_SECONDS)[0]:
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                code = self._process.wait()
                self.kill()
                raise ProcessDied(code)
            self._buffer += chunk
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            return None
        self._buffer = rest
        return line

    def close(self) -> None:
        """Let it end; what takes too long is killed, with all that it started."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and its group at once, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
