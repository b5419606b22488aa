"""Celery carries job ids, no more. Settings for tasks that take hours, on Redis.

A prefork pool of one is a supervisor without torch in it; the training is a process of its own.
Messages are acknowledged late, and one that is delivered twice finds the row leased.

SIGTERM is Celery's warm shutdown: it waits for the task, and the task, told by a flag, has its
trainer write a checkpoint and gives the job back. (A soft shutdown, REMAP_SIGTERM=SIGQUIT, sleeps
through its whole timeout and tells nobody before.) The pool's process takes SIGTERM the same way,
and asks the kernel for one when the main process dies: the job is given back in order, at once.
"""

import os
import signal
from multiprocessing import RawValue
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    task_prerun,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)

from app.jobs.kinds import IO, QUEUES, TRAIN
from app.jobs.queue import visibility
from app.settings import Settings
from worker.background.io_process import IoProcess
from worker.polling import CLEAN_UP_SECONDS
from worker.runtime.parent_death import exit_with_parent
from worker.tasks import clean_up_round, reaper_round, register

CLEAN_UP_AFTER = 15.0  # seconds: what a killed worker left is soon gone


def make_celery(settings: Settings) -> Celery:
    """The Celery app with its one task. Raises ValueError where there is no broker_url."""
    if settings.broker_url is None:
        raise ValueError("no broker: set SAPNET_BROKER_URL, or use the embedded worker")
    celery = Celery("sapnet-worker", broker=settings.broker_url)
    celery.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_default_queue=TRAIN,
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        **visibility(),
    )
    return celery


def run(settings: Settings, queues: tuple[str, ...] = QUEUES) -> None:
    """Work on these queues until a signal, which lets the job write its checkpoint and go."""
    celery = make_celery(settings)
    io_process = IoProcess()
    stopping = RawValue("b", 0)  # shared with the pool's process, which is forked later

    signals: list[int] = []  # the pool's process alone
    main_process = os.getpid()

    def request_shutdown(**_: Any) -> None:
        stopping.value = 1

    def forked(**_: Any) -> None:
        exit_with_parent(main_process, signal.SIGTERM)

    def begun(**_: Any) -> None:  # with no task in hand SIGTERM just ends the pool's process
        signal.signal(signal.SIGTERM, lambda number, _frame: signals.append(number))

    def ready(sender: Any, **_: Any) -> None:
        reaper_round(settings)
        sender.timer.call_repeatedly(settings.reap_seconds, reaper_round, (settings,))
        sender.timer.call_after(CLEAN_UP_AFTER, clean_up_round, (settings,))
        sender.timer.call_repeatedly(CLEAN_UP_SECONDS, clean_up_round, (settings,))
        if IO in queues:
            io_process.restart_if_dead()
            sender.timer.call_repeatedly(settings.reap_seconds, io_process.restart_if_dead)

    setup_logging.connect(_leave_logs_alone, weak=False)
    worker_shutting_down.connect(request_shutdown, weak=False)
    worker_process_init.connect(forked, weak=False)
    task_prerun.connect(begun, weak=False)
    worker_ready.connect(ready, weak=False)
    register(celery, settings, lambda: bool(stopping.value or signals))
    name = f"--hostname={'-'.join(queues)}-{main_process}@%h"
    pool = ["--pool=prefork", "--concurrency=1", f"--queues={','.join(queues)}", name]
    quiet = ["--without-gossip", "--without-mingle", f"--loglevel={settings.log_level}"]
    try:
        celery.worker_main(["worker", *pool, *quiet])
    finally:
        io_process.stop()


def _leave_logs_alone(**_: Any) -> None:
    """Keep Celery from setting up its own logging, which it does where this signal has no receiver.

    `app.observability.logging` sets it up.
    """
