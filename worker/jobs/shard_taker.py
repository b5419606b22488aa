"""One shard, from its lease to its end: whoever is free takes the next one."""

import shutil
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.exc import NoResultFound, SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import Image, Job, Reason, Shard, ShardState
from app.errors import BlobMissing, is_disk_full
from app.jobs.submit import request_of
from app.observability.log_text import presentable
from app.storage.garbage_collection import pinned
from sapnet.utils.files import file_sha256
from worker.jobs.points import points_document
from worker.jobs.transitions import delay_after
from worker.runtime.heartbeat import DATABASE_AWAY, Heartbeat, StopReason
from worker.runtime.lease import LeaseLost, ShardLease, acquire_shard, write
from worker.runtime.process_end import how_it_died
from worker.runtime.shard_process import ProcessDied, ShardProcess
from worker.runtime.subprocess import Event
from worker.runtime.types import WorkerContext
from worker.runtime.workdir import workdir_of, write_json

log = structlog.get_logger()

SECONDS_BETWEEN_WRITES = 1.0
DISK_FULL_ATTEMPTS = 2  # in a row that got no further
TRY_AGAIN = (Reason.ATTEMPT_FAILED, Reason.DISK_FULL)


class Taker:
    """Takes shards, one after the other, with a process that stays between them.

    It belongs to one thread: the process dies with it. A context manager.
    """

    def __init__(self, worker: WorkerContext, number: int = 0) -> None:
        """worker: with an owner of this taker alone. number: of the taker in its worker, from 0."""
        self._worker, self._settings = worker, worker.settings
        self._device = worker.settings.device_of(number)
        self._process: ShardProcess | None = None
        self._job_id: str | None = None  # whose shards the process works on

    def __enter__(self) -> "Taker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_process()

    def take_one(self, job_id: str | None = None) -> bool:
        """Take the next shard and work on it; whether there was one.

        Never raises for what can go wrong with a shard: that is written into its row.

        Args:
            job_id: of that job alone.

        Raises:
            SQLAlchemyError: the database is away.
        """
        worker, networks = self._worker, self._device is not None
        lease = acquire_shard(
            worker.database, worker.owner, self._settings, job_id, networks=networks
        )
        if lease is None:
            return False
        logger = log.bind(job=lease.job_id, shard=lease.pk, attempt=lease.attempt)
        try:
            with Heartbeat(worker.database, lease, self._settings, worker.stopping) as heartbeat:
                Attempt(self, worker, lease, heartbeat).run()
        except (LeaseLost, NoResultFound):
            self._end_process()
            logger.warning("shard lost to another worker, or deleted")
        return True

    def process(self, job_id: str) -> ShardProcess:
        """Return the process, a new one where the job is another than before."""
        if self._process is None or self._job_id != job_id or not self._process.alive:
            self._end_process()
            environment = self._settings.trainer_environment
            if self._device is not None:
                environment |= {"SAPNET_DEVICES": self._device}
            self._process = ShardProcess(
                self._settings.shard_command,
                workdir=workdir_of(self._settings, job_id),
                environment=environment,
            )
            self._job_id = job_id
        return self._process

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


class Attempt:
    """One attempt at a shard whose lease this taker has."""

    def __init__(
        self, taker: Taker, worker: WorkerContext, lease: ShardLease, heartbeat: Heartbeat
    ) -> None:
        self._taker, self._worker, self._settings = taker, worker, worker.settings
        self._lease, self._heartbeat = lease, heartbeat
        self._began = time.monotonic()
        self._written = self._began
        self._failed = list(lease.failed_images)
        self._step, self._images = 0, 0
        self._seconds = 0.0
        self._current: int | None = None
        self._names: dict[int, str] = {}

    def run(self) -> None:
        """Work on the shard until it is done, or until it must be left to others.

        Raises:
            LeaseLost: another taker has the shard, or its job wants it no more.
            SQLAlchemyError: the database is away for longer than the lease lasts.
        """
        if self._lease.setbacks > self._settings.max_attempts:
            return self._fail(Reason.CRASHED, self._last_words())
        folder = workdir_of(self._settings, self._lease.job_id)
        folder = folder / "shards" / f"{self._lease.pk}-{self._lease.attempt}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._work(folder)
        except ProcessDied as death:
            if self._stopped():
                return
            self._died(how_it_died(death.code))
        except (LeaseLost, NoResultFound, SQLAlchemyError):
            raise
        except Exception as error:  # disk full, storage away, no memory for a process
            bug = not isinstance(error, OSError | BlobMissing)
            log.error("shard failed", job=self._lease.job_id, error=repr(error), exc_info=bug)
            reason = Reason.DISK_FULL if is_disk_full(error) else Reason.ATTEMPT_FAILED
            self._set_back(reason, f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _work(self, folder: Path) -> None:
        spec = self._heartbeat.retry(lambda: self._spec(folder))
        process = self._taker.process(self._lease.job_id)
        answer: Event = {}
        asked = process.ask(spec, lambda: self._heartbeat.stop_reason is not None)
        with closing(asked) as reported:
            for event in reported:
                answer = answer if event is None else event
                match event:
                    case {"event": "image", "image_id": int(image_id), "step": int(step)}:
                        self._current, self._step = image_id, step
                    case {"event": "image_set_aside", "image_id": int()}:
                        names = ("image_id", "file_name", "stage", "error")
                        self._failed.append({name: answer.get(name) for name in names})
                self._report()
        if answer.get("event") == "shard_done":
            self._done(Path(spec["result"]))
        elif answer.get("event") == "error":
            reason, message = str(answer.get("reason")), str(answer.get("message"))
            if reason in TRY_AGAIN:
                self._set_back(reason, message)
            else:
                self._fail(reason, message)
        else:
            self._stopped()

    def _spec(self, folder: Path) -> dict[str, Any]:
        """What the process is told; writes the points and fetches the images."""
        with self._worker.database.read() as session:
            shard = session.get_one(Shard, self._lease.pk)
            job = session.get_one(Job, shard.job_id)
            request = request_of(self._worker.storage, job)
            self._images, self._seconds = shard.images, shard.seconds
            ids = shard.low, shard.high
            points = points_document(session, str(job.dataset_id), ids)
            blobs = _blobs(session, str(job.dataset_id), ids)
        self._names = {image["id"]: image["file_name"] for image in points["images"]}
        write_json(folder / "points.json", points)
        images = workdir_of(self._settings, job.id) / "images"
        files: dict[str, str] = {}
        for sha, file in self._worker.storage.local_files(set(blobs.values()), images):
            if isinstance(file, Path):  # of one that is lost the process says so
                files[sha] = str(file)
        return {
            "stage": shard.stage,
            "points": str(folder / "points.json"),
            "image_paths": {str(id_): files[sha] for id_, sha in blobs.items() if sha in files},
            "proposals": request["proposals"],
            "plan": {name: shard.plan[name] for name in ("max_proposals", "ranges")},
            "store": str(self._settings.folder("proposals")),
            "result": str(folder / "result.bags"),
            "excluded": [entry["image_id"] for entry in self._failed],
            "one_by_one": self._lease.stuck_at is not None,
            "reserve_bytes": self._settings.reserve_bytes,
        }

    def _report(self) -> None:
        """Write how far it is, now and then; while the database is away the work goes on."""
        if time.monotonic() - self._written < SECONDS_BETWEEN_WRITES:
            return
        self._written = time.monotonic()
        try:
            with self._worker.database.begin() as session:
                write(session, self._lease, **self._progress())
        except DATABASE_AWAY as error:
            log.warning("progress of a shard not written", error=repr(error))

    def _progress(self) -> dict[str, Any]:
        further = {"setbacks": 0, "error": None, "reason": None}
        return {
            "step": max(self._step, self._lease.step),
            "seconds": round(self._seconds + time.monotonic() - self._began, 3),
            "failed_images": self._failed,
            **(further if self._step > self._lease.step else {}),
        }

    def _done(self, result: Path) -> None:
        """Store the result, and mark the shard as done in one transaction."""
        sha = file_sha256(result)

        def record() -> None:
            with pinned(self._worker.database, self._worker.storage, [sha]):
                self._worker.storage.put_files({sha: result})
                ended: dict[str, Any] = {"step": self._images, "sha": sha, "stuck_at": None}
                ended |= {"lease_until": None, "error": None, "reason": None}
                self._write_end(ShardState.DONE, **ended)

        self._heartbeat.retry(record)

    def _write_end(
        self, state: ShardState, *, unless_cancelled: bool = True, **values: Any
    ) -> None:
        """Write the row's state.

        Raises:
            LeaseLost: the lease is no longer ours, or the job wants the shard no more.
        """
        columns = {**self._progress(), **values, "state": state}
        with self._worker.database.begin() as session:
            write(session, self._lease, unless_cancelled=unless_cancelled, **columns)

    def _stopped(self) -> bool:
        """Leave the shard for the heartbeat's reason, where there is one; whether there was."""
        reason = self._heartbeat.stop_reason
        if reason is StopReason.LOST:
            raise LeaseLost(self._lease.job_id)
        if reason is None:
            return False
        setbacks = 0 if self._step > self._lease.step else max(self._lease.setbacks - 1, 0)
        self._retry_end(ShardState.QUEUED, owner=None, lease_until=None, setbacks=setbacks)
        return True

    def _died(self, how: str) -> None:
        """The process ended without a word. Twice at one image, it is the image's fault."""
        image_id = self._current
        log.warning("a process died", job=self._lease.job_id, image=image_id, error=how)
        if image_id is None or image_id != self._lease.stuck_at:
            return self._set_back(Reason.TRAINER_DIED, how, stuck_at=image_id)
        words = f"the process that made its proposals ended twice at this image: {how}"
        name = self._names.get(image_id)
        failed = {"image_id": image_id, "file_name": name, "stage": "proposals", "error": words}
        self._failed.append(failed)
        left = {"owner": None, "lease_until": None, "stuck_at": None, "setbacks": 0}
        self._retry_end(ShardState.QUEUED, **left)

    def _set_back(self, reason: str, error: str, **values: Any) -> None:
        """Give the shard back after what may not happen again."""
        setbacks = 1 if self._step > self._lease.step else self._lease.setbacks
        if reason == Reason.DISK_FULL and setbacks >= DISK_FULL_ATTEMPTS:
            return self._fail(reason, error)
        delay = delay_after(setbacks, reason)
        until = now() + timedelta(seconds=delay) if delay else None
        why = {"reason": str(reason), "error": presentable(error), "setbacks": setbacks}
        self._retry_end(ShardState.QUEUED, owner=None, lease_until=until, **why, **values)

    def _fail(self, reason: str, error: str) -> None:
        """End the shard without a result, and so the job."""
        error = presentable(error)
        log.error("shard failed", job=self._lease.job_id, reason=str(reason), error=error)
        why = {"reason": str(reason), "error": error}
        self._retry_end(ShardState.FAILED, lease_until=None, **why)

    def _retry_end(self, state: ShardState, **values: Any) -> None:
        self._heartbeat.retry(lambda: self._write_end(state, unless_cancelled=False, **values))

    def _last_words(self) -> str:
        with self._worker.database.read() as session:
            last = session.get_one(Shard, self._lease.pk).error or "its worker ended without a word"
        tries = self._settings.max_attempts
        return f"{tries} attempts in a row got no further. Last: {last}"


def _blobs(session: Session, dataset_id: str, ids: tuple[int, int]) -> dict[int, str]:
    query = select(Image.image_id, Image.sha256).where(Image.dataset_id == dataset_id)
    rows = session.execute(query.where(Image.image_id.between(*ids)))
    return {row.image_id: row.sha256 for row in rows}
