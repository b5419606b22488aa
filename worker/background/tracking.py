"""Shows trainings in trackers of experiments, beside the work.

Each tracker of a training is a process (`worker.runtime.tracker_process`) that is given the job's
events, as they are in its log. No training waits for it: a tracker that fails or hangs is stopped
and tried again later, which the job's events tell.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db.columns import now
from app.db.models import Dataset, EventType, Job, JobEvent, JobTracker, Model
from app.db.session import Database
from app.errors import BlobMissing
from app.jobs.submit import request_of
from app.settings import Settings
from app.storage.store import Storage
from worker.background import tracking_rows as rows
from worker.background.tracking_rows import TrackerLease
from worker.runtime.tracker_process import TrackerFailed, TrackerProcess

log = structlog.get_logger()

AT_ONCE = 8
BEFORE = timedelta(minutes=10)
"""Trainings that ended so long before a worker began are tracked, too: it may have been down."""
BATCH = 200
IDLE_SECONDS = 60.0
"""Without an event for so long, a tracker's process ends; the next event starts it again."""


@contextmanager
def closing_folder(folder: Path) -> Iterator[None]:
    """Remove a folder when the block is left."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Tracking(threading.Thread):
    """Looks every `poll_seconds` for trainings that are to be tracked."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        super().__init__(name="tracking", daemon=True)
        self._database, self._storage, self._settings = database, storage, settings
        self._ended = threading.Event()
        self._followers: list[threading.Thread] = []
        self._since = now() - BEFORE

    def run(self) -> None:
        """Do a round every `poll_seconds` until `stop`; nothing where no tracker is set."""
        while self._settings.tracking and not self._ended.wait(self._settings.poll_seconds):
            try:
                self.run_once()
            except SQLAlchemyError as error:
                log.warning("trackers wait for the database", error=type(error).__name__)
            except Exception:  # this thread must not end while its worker goes on
                log.exception("trackers not looked for")

    def stop(self, seconds: float = 5.0) -> None:
        """Trackers in hand get so long; what is left is done by the next worker."""
        self._ended.set()
        deadline = time.monotonic() + seconds
        for follower in self._followers:
            follower.join(max(0.0, deadline - time.monotonic()))

    def run_once(self) -> None:
        """Take up what is due, each in a thread of its own."""
        trackers = self._settings.tracking
        rows.register(self._database, trackers, self._since)
        self._followers = [f for f in self._followers if f.is_alive()]
        with self._database.read() as session:
            waiting = rows.due(session, trackers, AT_ONCE - len(self._followers))
        for lease in waiting:
            with self._database.begin() as session:
                taken = rows.take(session, lease, self._settings.tracking_timeout_seconds)
            if taken is not None:
                follower = threading.Thread(target=self._follow, args=(taken,), daemon=True)
                self._followers.append(follower)
                follower.start()

    def _follow(self, lease: TrackerLease) -> None:
        """Give a tracker the events of its training until there are no more for now."""
        try:
            try:
                self._give(lease)
            except (TrackerFailed, BlobMissing, OSError) as error:
                log.warning(
                    "not tracked", job=lease.job_id, tracker=lease.tracker, error=str(error)
                )
                with self._database.begin() as session:
                    rows.failed(session, lease, str(error))
        except SQLAlchemyError as error:  # it is taken up again when its time in hand is over
            log.warning("a tracker waits for the database", error=type(error).__name__)
        except Exception:
            log.exception("not tracked", job=lease.job_id, tracker=lease.tracker)

    def _give(self, lease: TrackerLease) -> None:
        with self._database.read() as session:
            row = session.get(JobTracker, lease.id)
            if row is None:
                return
            sent, opening = row.sent, self._opening(session, lease, row)
        folder = self._settings.tracking_dir or self._settings.folder("tracking")
        folder = (folder / lease.tracker).resolve()
        opening["info"]["folder"] = str(folder)
        scratch = self._settings.folder("tracking", ".work", lease.id)
        timeout = self._settings.tracking_timeout_seconds
        with closing_folder(scratch), TrackerProcess(scratch, timeout) as process:
            answer = process.ask(opening)
            last_event = time.monotonic()
            while not self._ended.is_set():
                with self._database.read() as session:
                    batch = rows.following(session, lease, sent, BATCH)
                over = False
                for event in batch:
                    over = event.type == EventType.END
                    if not self._renewed(lease):
                        return
                    answer = process.ask(self._message(event, scratch))
                    sent, last_event = event.seq, time.monotonic()
                if batch:
                    with self._database.begin() as session:
                        ours = rows.passed(session, lease, answer, sent, over=over)
                else:
                    ours = self._renewed(lease)
                if over or not ours:
                    return
                if time.monotonic() - last_event > IDLE_SECONDS:
                    break
                self._ended.wait(self._settings.poll_seconds)
        with self._database.begin() as session:
            rows.release(session, lease)

    def _renewed(self, lease: TrackerLease) -> bool:
        """Keep it for the time of an answer; False where another worker has it."""
        with self._database.begin() as session:
            return rows.renew(session, lease)

    def _opening(self, session: Any, lease: TrackerLease, row: JobTracker) -> dict[str, Any]:
        job = session.get_one(Job, lease.job_id)
        dataset = session.get(Dataset, job.dataset_id)
        name = f"{dataset.name}, {job.method}, {job.id[:8]}" if dataset else job.id
        info = {"key": job.id, "name": name, "run_id": row.run_id}
        info["params"] = self._params(job, dataset)
        return {"kind": lease.tracker, "info": info, "reached": row.reached}

    def _params(self, job: Job, dataset: Dataset | None) -> dict[str, str]:
        """What the training was asked for; its preset once it is known."""
        params: dict[str, Any] = {"method": job.method, "seed": job.seed, "job": job.id}
        if job.preset != "auto":
            params["preset"] = job.preset
        if dataset is not None:
            params |= {"dataset": dataset.name, "dataset_id": dataset.id}
            params |= {"images": dataset.images, "annotations": dataset.annotations}
        try:
            request = request_of(self._storage, job)
        except (BlobMissing, OSError):
            request = {}
        params |= request.get("overrides") or {}
        params["proposals"] = (request.get("proposals") or {}).get("kind")
        params |= {"from_model": job.from_model, "generator": job.proposal_generator}
        return {name: str(value) for name, value in params.items() if value is not None}

    def _message(self, event: JobEvent, folder: Path) -> dict[str, Any]:
        moment = event.moment.timestamp()
        if event.type == EventType.END:
            return {"ending": self._ending(event, moment, folder)}
        document = {"seq": event.seq, "type": event.type, "time": moment, "data": event.data}
        return {"event": document}

    def _ending(self, event: JobEvent, moment: float, folder: Path) -> dict[str, Any]:
        """How it ended, with its files by their names in a folder of this machine."""
        with self._database.read() as session:
            job = session.get_one(Job, event.job_id)
            dataset = session.get(Dataset, job.dataset_id)
            model = session.get(Model, job.model_id) if job.model_id else None
            blobs = {
                "model.pt": model.sha256 if model else None,
                "report.html": job.report_html_sha,
                "gallery.png": job.gallery_sha,
                "log.txt": job.log_sha,
            }
            metrics, params = job.metrics or {}, self._params(job, dataset)
        files: dict[str, str] = {}
        for name, sha in blobs.items():
            if sha is not None:
                link = folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(self._storage.local_path(sha).resolve())
                files[name] = str(link)
        ending = {"state": str(event.data.get("state")), "time": moment, "params": params}
        return {**ending, "figures": metrics, "files": files}
