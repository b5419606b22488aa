"""`python -m worker.main`: one worker, embedded where there is no broker, else Celery's."""

import signal
from types import FrameType

from app import logs
from app.db import Database
from app.settings import Settings
from app.storage import make_storage


def main() -> None:
    settings = Settings()
    logs.configure(settings.log_level, settings.log_json)
    if settings.embedded:
        run_embedded(settings)
    else:
        from worker.celery_app import run

        run(settings)


def run_embedded(settings: Settings) -> None:
    """Until SIGTERM or SIGINT: a running job then writes its checkpoint and is queued again."""
    from worker.embedded import loop
    from worker.jobs import Worker

    told: list[int] = []  # no threading.Event: setting one in a signal handler may deadlock

    def go_home(signal_number: int, _frame: FrameType | None) -> None:
        told.append(signal_number)

    signal.signal(signal.SIGTERM, go_home)
    signal.signal(signal.SIGINT, go_home)
    database = Database(settings.database)
    worker = Worker(settings, database, make_storage(settings), lambda: bool(told))
    loop(worker)
    database.dispose()


if __name__ == "__main__":
    main()
