"""Keeps one worker process running beside the API: `sapnet-service serve` is one command."""

import os
import signal
import subprocess
import sys
import threading
import time

import structlog

from worker.leash import leashed

log = structlog.get_logger()

LONGEST_PAUSE = 30.0
HEALTHY_AFTER = 60.0


class Supervisor(threading.Thread):
    """Starts the worker, starts it again when it dies, and stops it. All settings come from the
    environment, `environment` beside it; should this process be killed, the worker gets SIGTERM."""

    def __init__(self, environment: dict[str, str], stop_seconds: float) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._environment, self._stop_seconds = environment, stop_seconds
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            began = time.monotonic()
            self._process = subprocess.Popen(
                leashed([sys.executable, "-m", "worker.main"], sig=signal.SIGTERM),
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the API alone, which then stops us
            )
            while self._process.poll() is None and not self._stopping.wait(0.2):
                pass
            if self._stopping.is_set():
                break
            log.error("the worker died, another is started", code=self._process.returncode)
            pause = 1.0 if time.monotonic() - began > HEALTHY_AFTER else pause
            self._stopping.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def stop(self) -> None:
        """SIGTERM: a running job writes its checkpoint and is queued again. Then SIGKILL."""
        self._stopping.set()
        self.join()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            log.error("the worker does not stop and is killed")
            self._process.kill()
            self._process.wait()
