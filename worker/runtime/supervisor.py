"""Keeps one worker process running beside the API: `sapnet-service serve` is one command."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import structlog

from worker.runtime.parent_death import spawn_with_parent

log = structlog.get_logger()

LONGEST_PAUSE = 30.0
HEALTHY_AFTER = 60.0


class Supervisor(threading.Thread):
    """Starts the worker, starts it again when it dies, and stops it.

    All settings come from the environment; should this process be killed, the worker gets SIGTERM.
    """

    def __init__(self, queues: Sequence[str], stop_seconds: float) -> None:
        """queues: those that the worker works on."""
        super().__init__(name=f"supervisor-{'-'.join(queues)}", daemon=True)
        self._queues, self._stop_seconds = queues, stop_seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        """Run the worker until `stop`; where it dies, again after a pause."""
        pause = 1.0
        while not self._stopping.is_set():
            began = time.monotonic()
            process = subprocess.Popen(
                spawn_with_parent(
                    [sys.executable, "-m", "worker.main", *self._queues], sig=signal.SIGTERM
                ),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the API alone, which then stops us
            )
            while process.poll() is None and not self._stopping.wait(0.2):
                pass
            if self._stopping.is_set():
                return self._end(process)
            log.error("the worker died, another is started", code=process.returncode)
            pause = 1.0 if time.monotonic() - began > HEALTHY_AFTER else pause
            self._stopping.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM: a running job writes its checkpoint and is queued again. Then SIGKILL."""
        process.terminate()
        try:
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            log.error("the worker does not stop and is killed")
            process.kill()
            process.wait()

    def request_stop(self) -> None:
        """Have the worker stop."""
        self._stopping.set()

    def stop(self) -> None:
        """Have it stop, and wait until it has."""
        self.request_stop()
        if self.is_alive():
            self.join()
