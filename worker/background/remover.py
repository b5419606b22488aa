"""The thread that removes what was deleted, and what nothing needs any more, beside the work.

All of it is done in small transactions, so that nobody who writes waits for it, and begun again by
whoever comes next: rows and pins say what is left.
"""

import math
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.datasets import deferred as imports
from app.datasets.removal import remove_deleted
from app.db.session import Database
from app.jobs import shards
from app.masks import leftovers as masks
from app.predict import deferred as predictions
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import Storage
from app.uploads import service as uploads

log = structlog.get_logger()

SECONDS_BETWEEN_SWEEPS = 600.0
STOP_SECONDS = 5.0


class Remover(threading.Thread):
    """`remove_once` every `reap_seconds`."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        super().__init__(name="remover", daemon=True)
        self._database, self._storage, self._settings = database, storage, settings
        self._ended = threading.Event()
        self._swept = -math.inf

    def run(self) -> None:
        """Remove what there is, now and then, until `stop`."""
        while not self._ended.is_set():
            try:
                self.remove_once()
            except (OSError, SQLAlchemyError) as error:
                log.warning("not removed, next time then", error=repr(error))
            except Exception:  # this thread must not end while its worker goes on
                log.exception("not removed")
            self._ended.wait(self._settings.reap_seconds)

    def remove_once(self) -> None:
        """Remove deleted data sets, expired uploads, and the blobs that only they named.

        Now and then also what jobs that are over have left.

        Raises:
            SQLAlchemyError: the database is away.
            OSError: storage is away.
        """
        remove_deleted(self._database, self._ended.is_set)
        uploads.clean_up(self._database)
        if time.monotonic() - self._swept >= SECONDS_BETWEEN_SWEEPS:
            imports.clean_up(self._database)
            predictions.clean_up(self._database)
            masks.clean_up(self._database)
            shards.clean_up(self._database)
            self._swept = time.monotonic()
        blobs.clean_up(self._database, self._storage, self._ended.is_set)

    def stop(self) -> None:
        """End with the batch in hand.

        What takes longer is cut off with the process, which loses nothing.
        """
        self._ended.set()
        self.join(STOP_SECONDS)
