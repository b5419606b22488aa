"""What the parts of a worker share: what it works with, and how it leaves a job."""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from app.db.session import Database
from app.jobs.kinds import QUEUES
from app.settings import Settings
from app.storage.store import Storage


def new_owner() -> str:
    """Return a name for a worker that no other one has, at most 128 characters."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[-128:]


class Outcome(Enum):
    """How a worker left a job."""

    REFUSED = auto()  # leased by another worker, finished, or not due
    ENDED = auto()  # succeeded, failed or cancelled
    RELEASED = auto()  # queued again, may be taken at once
    DELAYED = auto()  # queued again, to be taken later
    LOST = auto()  # another worker has it now, or the database is away


@dataclass(frozen=True)
class WorkerContext:
    """What a worker works with.

    Attributes:
        stopping: whether the worker was asked to shut down.
        queues: those that the embedded worker looks for jobs in.
        owner: the name in the leases that it takes.
    """

    settings: Settings
    database: Database
    storage: Storage
    stopping: Callable[[], bool] = lambda: False
    queues: tuple[str, ...] = QUEUES
    owner: str = field(default_factory=new_owner)
