"""The thread that describes images beside the work, so that no import waits for it.

Statistics and rankings of a data set say how many of its images it has not come to yet.
"""

import math
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.datasets import descriptors
from app.db.session import Database
from app.settings import Settings
from app.storage.store import Storage

log = structlog.get_logger()

SECONDS_BETWEEN_SWEEPS = 600.0
"""Until all images are looked through again: for what could not be read, and came late."""
STOP_SECONDS = 5.0


class Describer(threading.Thread):
    """Looks every `poll_seconds` for images that came since, and describes them."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        super().__init__(name="describer", daemon=True)
        self._database, self._storage, self._settings = database, storage, settings
        self._ended = threading.Event()
        self._after = 0
        self._swept = -math.inf

    def run(self) -> None:
        """Do a round every `poll_seconds` until `stop`."""
        while not self._ended.is_set():
            try:
                self.run_once()
            except (OSError, SQLAlchemyError) as error:
                log.warning("images are not described, next time then", error=repr(error))
            except Exception:  # this thread must not end while its worker goes on
                log.exception("images are not described")
            self._ended.wait(self._settings.poll_seconds)

    def run_once(self) -> int:
        """Describe the images that have come since the last round; now and then look at all.

        Returns:
            How many were described.

        Raises:
            SQLAlchemyError: the database is away.
            OSError: storage is away.
        """
        if time.monotonic() - self._swept >= SECONDS_BETWEEN_SWEEPS:
            descriptors.clean_up(self._database)
            self._after, self._swept = 0, time.monotonic()
        described = 0
        while not self._ended.is_set():
            with self._database.read() as session:
                newest = descriptors.newest(session)
                if newest <= self._after:
                    break
                shas, last = descriptors.lacking(session, self._after)
            described += self._describe(shas)
            self._after = newest if last is None else last
        return described

    def _describe(self, shas: list[str]) -> int:
        made = 0
        for start in range(0, len(shas), descriptors.BATCH):
            began = time.monotonic()
            some = shas[start : start + descriptors.BATCH]
            stopping = self._ended.is_set
            made += descriptors.make(self._database, self._storage, self._settings, some, stopping)
            self._ended.wait(time.monotonic() - began)  # half of the time is the others'
        return made

    def stop(self) -> None:
        """End with the image in hand; whoever comes next goes on."""
        self._ended.set()
        self.join(STOP_SECONDS)
