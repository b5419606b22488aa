"""What a worker of the queue `io` does beside its jobs: webhooks, trackers, removal, descriptors.

Threads in the embedded worker. Celery's parent process forks, which threads do not survive well, so
there they have a process of their own: `python -m worker.background.io_process`.
"""

import signal
import subprocess
import sys
from types import FrameType

from app.db.session import Database
from app.observability import logging as logs
from app.settings import Settings
from app.storage.store import make_storage
from worker.background.describer import Describer
from worker.background.remover import Remover
from worker.background.tracking import Tracking
from worker.background.webhook_sender import WebhookSender
from worker.runtime.parent_death import spawn_with_parent


class IoProcess:
    """The process beside Celery's main process; it gets SIGTERM should that one be killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def restart_if_dead(self) -> None:
        """Start it, or start it again if it died. To be called by one thread, which it hangs on."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "worker.background.io_process"]
            self._process = subprocess.Popen(
                spawn_with_parent(command, sig=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Have it stop, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def main() -> None:
    """Until SIGTERM or SIGINT."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_json)
    logs.log_uncaught()
    database = Database(settings.database)
    storage = make_storage(settings)
    remover = Remover(database, storage, settings)
    tracking = Tracking(database, storage, settings)
    describer = Describer(database, storage, settings)
    sender = WebhookSender(database, settings)

    def request_shutdown(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, request_shutdown)
    signal.signal(signal.SIGINT, request_shutdown)
    try:
        remover.start()
        tracking.start()
        describer.start()
        sender.start()
        sender.join()
    finally:
        describer.stop()
        tracking.stop()
        sender.stop()


if __name__ == "__main__":
    main()
