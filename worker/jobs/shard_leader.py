"""The stage `proposals` of a training with many images: cut into shards, waited for, gathered.

The worker that has the training takes shards like everybody else, so that with nobody else there it
makes them all. Whoever takes the training over finds those that are done.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import insert, select

from app.db.models import EventType, Image, Job, Shard, ShardState
from app.errors import BlobMissing
from app.jobs import events, shards
from app.jobs.queue import send_shard_hints
from sapnet.pipeline.contract import Stage, allowed_failures
from sapnet.utils.files import write_text
from worker.jobs.context import JobContext, StopRequested
from worker.jobs.shard_crew import CrewOfJob
from worker.jobs.transitions import JobFails
from worker.runtime.lease import renew_lease
from worker.runtime.shard_process import ProcessDied, ShardProcess
from worker.runtime.types import WorkerContext

log = structlog.get_logger()

STAGE = Stage.PROPOSALS
NETWORKS = ("sam", "sam2")
"""Kinds of proposals whose network is large, and uses all of a device."""
LOOK_SECONDS = 0.5
RATE_SECONDS = 120.0
"""The time left comes from what all takers did in so long."""


def make_proposals(
    ctx: JobContext, job_file: Path, proposals: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Have the proposals made by all workers that are free.

    Args:
        job_file: of the training.
        proposals: settings of the generator.

    Returns:
        What the job file should have besides; None where the training's process makes them: of few
        images, of given masks, and where it will say what is wrong with the training.

    Raises:
        StopRequested: the work should stop; what is done stays done.
        JobFails: a shard cannot be done.
        LeaseLost: the job is no longer ours.
    """
    size = ctx.settings.shard_images
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        ids = list(
            session.scalars(
                select(Image.image_id)
                .where(Image.dataset_id == job.dataset_id)
                .order_by(Image.image_id)
            )
        )
        rows = shards.of_job(session, ctx.job_id, STAGE)
        reported = {
            event.data["image_id"]
            for event in events.of_types(session, ctx.job_id, [EventType.IMAGE_SET_ASIDE])
        }
    if not rows:
        if not size or len(ids) <= size or proposals["kind"] == "given":
            return None
        planned = _plan(ctx, job_file)
        if planned is None:
            return None
        plan = {**planned, shards.NETWORK: proposals["kind"] in NETWORKS}

        def cut() -> None:
            _cut(ctx, ids, size, plan)

        ctx.retry(cut)
    began = time.monotonic()
    failed = _wait(ctx, len(ids), reported)
    _add_seconds(ctx.workdir / "result" / "seconds.json", time.monotonic() - began)
    ctx.report({"event": "made", "stage": STAGE})
    return {"proposal_files": list(map(str, _files(ctx))), "failed_images": failed}


def _plan(ctx: JobContext, job_file: Path) -> dict[str, Any] | None:
    """Ask for what shards need to know of the whole data set; None where there is no answer.

    Raises:
        StopRequested, LeaseLost.
    """

    def stopping() -> bool:
        try:
            ctx.check_stop()
        except StopRequested:
            return True
        return False

    process = ShardProcess(
        ctx.settings.shard_command,
        workdir=ctx.workdir,
        environment=ctx.settings.trainer_environment,
    )
    plan: dict[str, Any] | None = None
    with process:
        try:
            asked = process.ask({"stage": "plan", "job": str(job_file)}, stopping)
            with closing(asked) as reported:
                for event in filter(None, reported):
                    match event:
                        case {"event": "planned", "plan": dict(answer)}:
                            plan = answer
                        case {"event": "preset" | "warning"}:
                            ctx.report(event)
        except ProcessDied as death:
            log.warning("no plan of shards", job=ctx.job_id, code=death.code)
    ctx.check_stop()
    return plan


def _cut(ctx: JobContext, ids: list[int], size: int, plan: dict[str, Any]) -> None:
    """Write the rows of the shards, under the lease of the job; unless they are there."""
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    rows = [
        {
            "job_id": ctx.job_id,
            "stage": STAGE,
            "number": number,
            "low": part[0],
            "high": part[-1],
            "images": len(part),
            "plan": plan,
            "state": ShardState.QUEUED,
            "attempt": 0,
            "setbacks": 0,
            "step": 0,
            "seconds": 0.0,
            "failed_images": [],
        }
        for number, part in enumerate(parts)
    ]
    with ctx.database.begin() as session:
        renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
        if not shards.of_job(session, ctx.job_id, STAGE):
            session.execute(insert(Shard), rows)


def _wait(ctx: JobContext, of: int, reported: set[int]) -> list[dict[str, Any]]:
    """Work on the shards until all are done, and tell how far that is.

    Args:
        of: images of the job.
        reported: ids of the images whose failure was reported before.

    Returns:
        The entries of the images that failed. With more of them than may fail it ends at once: the
        training's process says so.
    """
    allowed = allowed_failures(of, ctx.settings.max_bad_images)
    done_at: deque[tuple[float, int]] = deque()
    worker = WorkerContext(ctx.settings, ctx.database, ctx.storage)
    hinted = False
    with CrewOfJob(worker, ctx.job_id) as crew:
        while True:
            rows = _rows(ctx)
            _check(rows)
            failed = [entry for row in rows for entry in row.failed_images]
            for entry in failed:
                if entry["image_id"] not in reported:
                    reported.add(entry["image_id"])
                    ctx.report({"event": "image_set_aside", **entry})
            step = sum(min(row.step, row.images) for row in rows)
            left = _seconds_left(done_at, step, of)
            progress = {"event": "progress", "stage": STAGE, "step": step, "of": of}
            ctx.report({**progress, "eta_seconds": left})
            over = all(row.state is ShardState.DONE for row in rows)
            if over or len(failed) > allowed:
                return failed
            if not hinted:
                send_shard_hints(ctx.settings.broker_url, len(rows))
                hinted = True
            crew.begin()
            time.sleep(min(LOOK_SECONDS, ctx.settings.poll_seconds))


def _rows(ctx: JobContext) -> list[Any]:
    rows: list[Any] = []

    def read() -> None:
        with ctx.database.read() as session:
            rows[:] = shards.of_job(session, ctx.job_id, STAGE)

    ctx.retry(read)
    return rows


def _check(rows: list[Any]) -> None:
    """Raises JobFails where a shard has."""
    for row in rows:
        if row.state is ShardState.FAILED:
            raise JobFails(row.reason or "error", row.error or "a shard failed")


def _seconds_left(done_at: deque[tuple[float, int]], step: int, of: int) -> float | None:
    """The time left by what all takers did lately; None before there is anything to go by."""
    moment = time.monotonic()
    if not done_at or done_at[-1][1] != step:
        done_at.append((moment, step))
    while len(done_at) > 2 and done_at[0][0] < moment - RATE_SECONDS:
        done_at.popleft()
    seconds, images = moment - done_at[0][0], step - done_at[0][1]
    return round((of - step) * seconds / images, 1) if images > 0 else None


def _files(ctx: JobContext) -> Iterator[Path]:
    """The results as files of this machine; of one that is lost the training makes its own."""
    shas = {row.sha for row in _rows(ctx) if row.sha is not None}
    for sha, file in ctx.storage.local_files(shas, ctx.workdir / "shards"):
        ctx.check_stop()
        if isinstance(file, BlobMissing):
            log.warning("result of a shard lost", job=ctx.job_id, sha=sha)
        else:
            yield file


def _add_seconds(path: Path, seconds: float) -> None:
    """Count the wait as seconds of the stage, where the training's process counts them."""
    counted: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    counted[STAGE] = round(counted.get(STAGE, 0.0) + seconds, 2)
    write_text(path, json.dumps(counted, indent=2) + "\n")
