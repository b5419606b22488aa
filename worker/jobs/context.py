"""Work that a worker does in its own process: imports, exports. What one attempt works with, and
how it writes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import JobState
from app.db.session import Database
from app.settings import Settings
from app.storage.store import Storage
from worker.runtime.lease import Claim, write

Tell = Callable[[str, int, int], None]
"""Called now and then with a stage, a step and of how many. What it raises ends the work."""


@dataclass(frozen=True)
class Work:
    """What one attempt works with. tell: raises where it should end. patiently: does a piece of
    work, again and again while the database is away."""

    database: Database
    storage: Storage
    settings: Settings
    held: Claim
    tell: Tell
    patiently: Callable[[Callable[[], None]], None]


def fenced(at: Work, session: Session) -> None:
    """Raises LeaseLost where this attempt may write no more; else it lives on."""
    until = now() + timedelta(seconds=at.settings.lease_seconds)
    write(session, at.held, unless_cancelled=True, lease_until=until)


def over(at: Work, session: Session, state: JobState, **values: Any) -> None:
    """The job is over, unless its cancellation was asked for: that raises LeaseLost."""
    ended = {"reason": None, "error": None, "finished_at": now(), "lease_until": None, **values}
    write(session, at.held, unless_cancelled=True, state=state, **ended)
