"""What one attempt at a job works with, and the two shapes of a kind's handler."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from app.db.models import JobKind
from app.db.session import Database
from app.errors import BlobMissing
from app.jobs.kinds import FETCH
from app.settings import Settings
from app.storage.store import Storage
from worker.runtime.lease import Lease
from worker.runtime.subprocess import Event
from worker.runtime.workdir import workdir_of

REPORT_EVERY = 64
"""Images that are fetched: fewer are there in a moment, which is not worth an event."""


class StopRequested(Exception):
    """The work on this job should stop: see `worker.runtime.heartbeat.StopReason`."""


def _at_once(action: Callable[[], None]) -> None:
    action()


@dataclass(frozen=True)
class JobContext:
    """What one attempt works with.

    Attributes:
        report_progress: called now and then with a stage, a step and of how many. Raises
            StopRequested where the work should stop, and LeaseLost.
        report: takes any event that the job's process might have told (docs/architecture.md).
            Raises what `report_progress` does.
        check_stop: raises StopRequested where the work should stop.
        retry: does a piece of work, again and again while the database is away.
    """

    database: Database
    storage: Storage
    settings: Settings
    lease: Lease
    report_progress: Callable[[str, int, int], None] = lambda _stage, _step, _of: None
    report: Callable[[Event], None] = lambda _event: None
    check_stop: Callable[[], None] = lambda: None
    retry: Callable[[Callable[[], None]], None] = _at_once

    @property
    def job_id(self) -> str:
        """Id of the job that is worked on."""
        return self.lease.job_id

    @property
    def workdir(self) -> Path:
        """The job's folder on this machine."""
        return workdir_of(self.settings, self.job_id)

    def image_files(self, shas: Collection[str]) -> dict[str, Path | BlobMissing]:
        """Have images as files of this machine that stay for as long as the job's folder does.

        Args:
            shas: digests of their blobs; each once.

        Returns:
            The file of each, or the error where storage has lost it.

        Raises:
            StopRequested, LeaseLost, OSError.
        """
        files: dict[str, Path | BlobMissing] = {}
        for sha, file in self.storage.local_files(shas, self.workdir / "images"):
            files[sha] = file
            if self.storage.is_local or len(files) % REPORT_EVERY:
                self.check_stop()
            else:
                self.report_progress(FETCH, len(files), len(shas))
        return files


@dataclass(frozen=True)
class InlineHandler:
    """A kind of job that is done in the worker's own process.

    Attributes:
        run: does it and ends it. Raises what `report_progress` does, BlobMissing, OSError.
    """

    kind: JobKind
    run: Callable[[JobContext], None]


@dataclass(frozen=True)
class SubprocessHandler:
    """A kind of job that a process of its own does.

    Attributes:
        prepare: writes the job file and what it names; its path. Raises what `report_progress`
            does, BlobMissing, OSError.
        record: writes the results, and ends the job. Takes the warnings of all attempts. Raises
            BadResult; LeaseLost where the job is no longer ours or its cancellation came first.
            It may be called twice where the database was away in between.
    """

    kind: JobKind
    prepare: Callable[[JobContext], Path]
    record: Callable[[JobContext, list[str]], None]


JobHandler = InlineHandler | SubprocessHandler
