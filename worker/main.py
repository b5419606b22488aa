"""`python -m worker.main [QUEUE…]`: a worker, embedded where there is no broker, else Celery's."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from app.db.session import Database
from app.jobs.kinds import QUEUES
from app.observability import logging as logs
from app.observability import tracing
from app.settings import Settings
from app.storage.store import make_storage
from worker.runtime import metrics


def main(queues: Sequence[str]) -> None:
    """queues: those to work on; none means all."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_json, *tracing.start(settings, "worker"))
    logs.log_uncaught()
    metrics.serve(settings)
    if settings.embedded:
        run_embedded(settings, tuple(queues) or QUEUES)
    else:
        from worker.celery_app import run

        run(settings, tuple(queues) or QUEUES)


def run_embedded(settings: Settings, queues: tuple[str, ...]) -> None:
    """Until SIGTERM or SIGINT: a running job then writes its checkpoint and is queued again."""
    from worker.polling import run
    from worker.runtime.types import WorkerContext

    signals: list[int] = []  # no threading.Event: setting one in a signal handler may deadlock

    def request_shutdown(signal_number: int, _frame: FrameType | None) -> None:
        signals.append(signal_number)

    signal.signal(signal.SIGTERM, request_shutdown)
    signal.signal(signal.SIGINT, request_shutdown)
    database = Database(settings.database)
    worker = WorkerContext(
        settings, database, make_storage(settings), lambda: bool(signals), queues
    )
    run(worker, lambda: signals.append(0))
    database.dispose()


if __name__ == "__main__":
    main(sys.argv[1:])
