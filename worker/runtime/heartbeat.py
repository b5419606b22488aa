"""The thread that renews a job's lease beside the work, and learns why the work should stop."""

import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError

from app.db.session import Database
from app.settings import Settings
from worker.runtime.lease import Lease, LeaseLost, LeaseOfRow, renew_lease
from worker.runtime.metrics import HEARTBEATS

log = structlog.get_logger()

DATABASE_AWAY = (OperationalError, InterfaceError, TimeoutError)  # for the moment
Result = TypeVar("Result")


class StopReason(Enum):
    """Why the work on a job should stop."""

    CANCELLED = auto()  # the user asked for it
    LOST = auto()  # the lease is not ours any more
    SHUTDOWN = auto()  # this worker is to stop; the job goes on elsewhere or later


class Heartbeat(threading.Thread):
    """Renews the lease for as long as its `with` block lasts; see `stop_reason`."""

    def __init__(
        self,
        database: Database,
        lease: LeaseOfRow,
        settings: Settings,
        stopping: Callable[[], bool],
    ) -> None:
        super().__init__(name=f"heartbeat-{lease.job_id}", daemon=True)
        cancelled = isinstance(lease, Lease) and lease.cancel_requested
        self._stop_reason = StopReason.CANCELLED if cancelled else None
        self._database, self._lease, self._settings = database, lease, settings
        self._stopping = stopping
        self._ended = threading.Event()
        self._renewed = time.monotonic()

    def __enter__(self) -> "Heartbeat":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the work should stop; None while it may go on.

        The lease counts as lost by the clock where the database does not answer, not even with an
        error: another worker may have the job once the lease has run out.
        """
        silent = time.monotonic() - self._renewed
        return StopReason.LOST if silent > self._settings.lease_seconds else self._stop_reason

    def retry(self, action: Callable[[], Result]) -> Result:
        """Return what `action` gives, tried again while the database is away and the lease lasts.

        It may be done twice: where the first time took hold, the lease refuses the second.
        """
        while True:
            try:
                return action()
            except DATABASE_AWAY as error:
                if self.stop_reason is StopReason.LOST:
                    raise
                log.warning("no answer from the database, trying again", error=repr(error))
                time.sleep(1.0)

    def run(self) -> None:
        """Renew the lease, and look for a reason to stop, until the attempt ends."""
        while not self._ended.wait(self._settings.poll_seconds):
            reason = self._check()
            if reason is StopReason.LOST:
                self._stop_reason = reason
                return
            self._stop_reason = self._stop_reason or reason

    def _check(self) -> StopReason | None:
        try:
            cancelled = self._beat()
        except LeaseLost:
            HEARTBEATS.add("lost")
            return StopReason.LOST
        except SQLAlchemyError as error:  # the database is away: it may be back before the lease
            HEARTBEATS.add("failed")
            log.warning("heartbeat failed", job=self._lease.job_id, error=repr(error))
            return None
        if cancelled:
            return StopReason.CANCELLED
        return StopReason.SHUTDOWN if self._stopping() else None

    def _beat(self) -> bool:
        """Return whether a cancellation was asked for; renew the lease where it is time to."""
        with self._database.read() as session:
            cancelled = session.scalars(self._lease.cancelled()).one_or_none()
        if cancelled is None:
            raise LeaseLost(self._lease.job_id)
        began = time.monotonic()
        if began - self._renewed >= self._settings.heartbeat_seconds:
            with self._database.begin() as session:
                renew_lease(session, self._lease, self._settings)
            self._renewed = began
            HEARTBEATS.add("renewed")
        return cancelled
