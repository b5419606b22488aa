"""kill -9 at random moments of a real job, and what becomes of the job.

`python benchmarks/chaos.py --kills 50`: PostgreSQL, Redis, API and Celery worker as processes; an
unbroken job first, then one job a kill. Each must succeed with the unbroken one's metrics and
masks, once, and leave no process and no file behind.
"""

import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Annotated, Any

import httpx2
import typer
from chaos_stack import ROOT, VICTIMS, Stack
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.db.models import SUCCESSFUL, Job, JobState, Model, PseudoMask
from sapnet.data.synthetic import make_scenes

RECOVERY_SECONDS = 60.0
BEGIN, END = "<!-- figures of `make chaos` -->", "<!-- end of the figures -->"
SERVERS = ("api", "redis", "postgresql")
OVERRIDES = {
    "train.batch_size": 2,
    "train.checkpoint_every": 10,
    "train.warmup_steps": 4,
    "teacher.epochs": 1,
    "teacher.min_steps": 20,
    "data.short_sides": [96],
    "data.max_long_side": 128,
}


@dataclass
class Kill:
    """One job that was broken off. moment: share of an unbroken job's seconds. recovery: seconds
    from the kill until the job was under way again."""

    victim: str
    moment: float
    stage: str | None
    state: str
    attempts: int
    seconds: float
    recovery: float | None
    same_metrics: bool
    same_masks: bool
    models: int
    orphans: list[str]

    @property
    def ok(self) -> bool:
        recovered = self.recovery is not None and self.recovery <= RECOVERY_SECONDS
        once = self.same_metrics and self.same_masks and self.models == 1
        return recovered and once and not self.orphans and self.state in SUCCESSFUL


class Chaos:
    """Jobs on a stack, one after the other."""

    def __init__(self, stack: Stack, rng: Random, request: dict[str, Any]) -> None:
        self.stack, self.rng, self.request = stack, rng, request

    def post_dataset(self, folder: Path, images: int) -> None:
        scenes = make_scenes(folder, images, size=(96, 112), seed=3)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in scenes.images.iterdir():
                zipped.write(path, path.name)
        files = {
            "annotations": ("points.json", scenes.points.read_bytes()),
            "truth": ("instances.json", scenes.truth.read_bytes()),
            "images": ("images.zip", archive.getvalue()),
        }
        answer = httpx2.post(
            f"{self.stack.api}/datasets", data={"name": "chaos"}, files=files, timeout=60
        )
        self.request["dataset_id"] = answer.raise_for_status().json()["id"]

    def start_job(self) -> str:
        self.stack.wait_until_ready(*self.stack.parts)
        answer = httpx2.post(f"{self.stack.api}/jobs/train", json=self.request, timeout=60)
        job_id = str(answer.raise_for_status().json()["id"])
        self.until(lambda: (job := self.row(job_id)) and job.started_at, 120, "a worker")
        return job_id

    def row(self, job_id: str) -> Job | None:
        """None while the database is away."""
        try:
            with self.stack.database.read() as session:
                return session.get_one(Job, job_id)
        except SQLAlchemyError:
            return None

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> float:
        """Seconds until it held."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"waited {seconds:.0f} s for {what} in vain")
            time.sleep(0.1)
        return time.monotonic() - began

    def unbroken(self) -> tuple[Job, float]:
        job_id = self.start_job()
        seconds = self.until(lambda: self.over(job_id), 1800, "the unbroken job")
        job = self.row(job_id)
        assert job is not None
        if job.state not in SUCCESSFUL:
            raise RuntimeError(f"the unbroken job is {job.state}: {job.reason}: {job.error}")
        return job, seconds

    def over(self, job_id: str) -> bool:
        job = self.row(job_id)
        return job is not None and job.finished_at is not None

    def broken(self, victim: str, first: Job, usual: float) -> Kill:
        """One job with one kill at a moment drawn at random."""
        began = time.monotonic()
        job_id = self.start_job()
        moment = self.rng.uniform(0.02, 0.95)
        time.sleep(usual * moment)
        before, pid = self.row(job_id), self.stack.find(victim)
        while pid is None and not self.over(job_id):  # no trainer at this very moment
            time.sleep(0.05)
            before, pid = self.row(job_id), self.stack.find(victim)
        assert before is not None
        starts = self.part_of(victim)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        recovery = self.recovery(job_id, victim, before, starts)
        self.until(lambda: self.over(job_id), 10 * usual + 300, f"the job after {victim}")
        self.stack.wait_until_ready(*self.stack.parts)
        time.sleep(1.0)
        job = self.row(job_id)
        assert job is not None
        return Kill(
            victim=victim,
            moment=round(moment, 3),
            stage=before.stage,
            state=job.state,
            attempts=job.attempt,
            seconds=round(time.monotonic() - began, 1),
            recovery=recovery,
            same_metrics=job.metrics == first.metrics,
            same_masks=self.masks(job.id) == self.masks(first.id),
            models=self.models(job.id),
            orphans=self.stack.orphans(),
        )

    def part_of(self, victim: str) -> int:
        """How often its program had been started before."""
        return self.stack.parts[victim if victim in SERVERS else "worker"].starts

    def recovery(self, job_id: str, victim: str, before: Job, starts: int) -> float | None:
        """Seconds until what was killed is there again and the job is in a trainer's hands (that
        of a later attempt, where the kill met one), or is over; None where that took too long."""

        def under_way() -> bool:
            if victim in SERVERS:
                again = self.stack.parts[victim].starts > starts and self.stack.ready(victim)
                if not again:
                    return False
            job = self.row(job_id)
            if job is None or job.finished_at is not None:
                return job is not None
            held = job.attempt if victim in SERVERS else job.attempt - 1
            return job.state is JobState.RUNNING and held >= before.attempt and self.trained()

        try:
            return round(self.until(under_way, 5 * RECOVERY_SECONDS, "recovery"), 1)
        except TimeoutError:
            return None

    def trained(self) -> bool:
        return bool(self.stack.trainers())

    def masks(self, job_id: str) -> list[tuple[Any, ...]]:
        with self.stack.database.read() as session:
            query = select(PseudoMask).where(PseudoMask.job_id == job_id)
            rows = session.scalars(query.order_by(PseudoMask.annotation_id)).all()
        return [(r.annotation_id, r.segmentation, r.quality, r.source) for r in rows]

    def models(self, job_id: str) -> int:
        with self.stack.database.read() as session:
            query = select(func.count()).select_from(Model).where(Model.job_id == job_id)
            return session.scalar(query) or 0


def clean(stack: Stack) -> list[str]:
    """What is left in the data folder once a worker has been stopped and has looked around."""
    os.kill(stack.parts["worker"].pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while stack.leftovers() and time.monotonic() < deadline:
        time.sleep(1)
    return stack.leftovers()


def table(kills: list[Kill], usual: float, left: list[str], machine: str) -> str:
    """Markdown."""
    lines = [
        f"{len(kills)} kills, one a job; a job unbroken takes {usual:.0f} s. {machine}",
        "",
        "| kill -9 of | jobs | succeeded | metrics and masks equal | recovery, median | longest |",
        "|---|---|---|---|---|---|",
    ]
    for victim in VICTIMS:
        own = [k for k in kills if k.victim == victim]
        times = [k.recovery for k in own if k.recovery is not None]
        if own:
            good = sum(k.state in SUCCESSFUL for k in own)
            same = sum(k.same_metrics and k.same_masks and k.models == 1 for k in own)
            spread = f"{median(times):.1f} s | {max(times):.1f} s" if times else "— | —"
            lines.append(f"| {victim} | {len(own)} | {good} | {same} | {spread} |")
    orphans = sum(len(k.orphans) for k in kills)
    lines += ["", f"Processes left behind: {orphans}. Files left behind: {len(left)}."]
    return "\n".join(lines)


def main(
    kills: Annotated[int, typer.Option(help="jobs, each with one kill")] = 50,
    seed: int = 0,
    images: Annotated[int, typer.Option(help="generated scenes")] = 12,
    epochs: Annotated[int, typer.Option(help="of training; sets how long a job takes")] = 24,
    victims: Annotated[str, typer.Option(help="which programs")] = ",".join(VICTIMS),
    set_: Annotated[list[str] | None, typer.Option("--set", help="SAPNET_…=…")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="all figures")] = None,
    markdown: Annotated[Path | None, typer.Option(help="a document to put the table in")] = None,
) -> None:
    """Exits with 1 where a single promise was broken."""
    settings = dict(pair.split("=", 1) for pair in set_ or [])
    rng, names = Random(seed), victims.split(",")
    order = [names[i % len(names)] for i in range(kills)]
    rng.shuffle(order)
    request = {"preset": "demo", "seed": 7, "overrides": {**OVERRIDES, "train.epochs": epochs}}
    folder = Path(tempfile.mkdtemp(prefix="sapnet-chaos-"))
    done: list[Kill] = []
    with Stack(folder, settings) as stack:
        chaos = Chaos(stack, rng, request)
        chaos.post_dataset(folder / "scenes", images)
        first, usual = chaos.unbroken()
        typer.echo(f"unbroken: {usual:.1f} s, {first.metrics}; logs in {folder}")
        for victim in order:
            for path in stack.data.glob("proposals/*"):  # so that each job makes its own
                path.unlink()
            done.append(chaos.broken(victim, first, usual))
            mark = "ok  " if done[-1].ok else "FAIL"
            typer.echo(f"{mark} {len(done)}/{kills} {json.dumps(asdict(done[-1]))}")
        left = clean(stack)
    report = {"unbroken_seconds": usual, "leftovers": left, "kills": [asdict(k) for k in done]}
    text = table(done, usual, left, machine())
    typer.echo(text)
    if json_:
        json_.write_text(
            json.dumps({"machine": machine(), "seed": seed, **report}, indent=1) + "\n"
        )
    if markdown:
        before, _, rest = markdown.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        markdown.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    raise typer.Exit(0 if all(kill.ok for kill in done) and not left else 1)


def machine() -> str:
    """Cores, Python and commit."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Python {platform.python_version()}, commit {commit or 'unknown'}."


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    typer.run(main)
