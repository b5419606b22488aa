"""Proposals of one job by two takers of this machine, beside one; and what a shard costs by itself.

Real shards: rows in SQLite, results as blobs, a process a taker. Say nothing of a machine that does
other things meanwhile: two takers want two idle cores.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from comparison import Row, row
from sqlalchemy import insert, select

from app.db import migrate as schema
from app.db.models import (
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    JobState,
    Shard,
    ShardState,
)
from app.db.session import Database
from app.settings import Settings
from app.storage.store import make_storage
from sapnet.data.synthetic import make_scenes
from worker.jobs.shard_crew import take_all
from worker.runtime.types import WorkerContext

MOST_SECONDS = 0.3
"""Of a shard, beside the work on its images."""


class Fleet:
    """A service's data with one data set, and takers of this process."""

    def __init__(self, folder: Path, images: int, size: tuple[int, int]) -> None:
        values: dict[str, Any] = {"data_dir": folder / "data", "poll_seconds": 0.05}
        self._settings = Settings(_env_file=None, **values)  # type: ignore[call-arg]
        self._database = Database(self._settings.database)
        schema.upgrade(self._database)
        self._storage = make_storage(self._settings)
        self._dataset, self._ids = self._add(folder, images, size)

    def _add(self, folder: Path, images: int, size: tuple[int, int]) -> tuple[str, list[int]]:
        scenes = make_scenes(folder / "scenes", images, size=size, seed=5)
        points = json.loads(scenes.points.read_text())
        with self._database.begin() as session:
            dataset = Dataset(
                name="scenes",
                status=DatasetStatus.READY,
                images=images,
                annotations=len(points["annotations"]),
                report={},
                document_sha=self._storage.put_bytes(b"{}"),
            )
            session.add(dataset)
            session.flush()
            of = {"dataset_id": dataset.id}
            for c in points["categories"]:
                session.add(Category(**of, category_id=c["id"], name=c["name"], annotations=0))
            for i in points["images"]:
                sha = self._storage.put_file(scenes.images / i["file_name"])
                of_image = {"image_id": i["id"], "file_name": i["file_name"], "sha256": sha}
                sizes = {"height": i["height"], "width": i["width"]}
                session.add(Image(**of, **of_image, **sizes, annotations=0))
            for a in points["annotations"]:
                x, y = a["point"]
                of_object = {"annotation_id": a["id"], "image_id": a["image_id"], "x": x, "y": y}
                session.add(Annotation(**of, **of_object, category_id=a["category_id"]))
        return dataset.id, sorted(i["id"] for i in points["images"])

    def seconds(self, takers: int, size: int, *, shards: int | None = None) -> float:
        """The time that so many takers need for all images, or for the first so many shards.

        Args:
            size: images of a shard.
        """
        parts = [self._ids[n : n + size] for n in range(0, len(self._ids), size)][:shards]
        request = {"proposals": {"kind": "hierarchy"}, "overrides": {}}
        job = Job(dataset_id=self._dataset, method="sapnet++", preset="cpu", seed=0)
        job.request, job.state = request, JobState.RUNNING
        plan = {"max_proposals": 16, "ranges": {}, "network": False}
        with self._database.begin() as session:
            session.add(job)
            session.flush()
            rows = [
                {"number": n, "low": part[0], "high": part[-1], "images": len(part)}
                for n, part in enumerate(parts)
            ]
            new = {"state": ShardState.QUEUED, "attempt": 0, "setbacks": 0, "step": 0}
            of = {
                "job_id": job.id,
                "stage": "proposals",
                "plan": plan,
                "seconds": 0.0,
                "failed_images": [],
            }
            session.execute(insert(Shard), [{**of, **new, **one} for one in rows])
        settings = self._settings.model_copy(update={"shard_takers": takers})
        worker = WorkerContext(settings, self._database, self._storage)
        began = time.perf_counter()
        take_all(worker)
        spent = time.perf_counter() - began
        with self._database.read() as session:
            states = set(session.scalars(select(Shard.state).where(Shard.job_id == job.id)))
        assert states == {ShardState.DONE}
        return spent

    def forget(self) -> None:
        """Forget the proposals, so that they are made again."""
        shutil.rmtree(self._settings.folder("proposals"))

    def close(self) -> None:
        """Close the database."""
        self._database.dispose()


def measure(small: bool) -> list[Row]:
    images, size = (6, (96, 112)) if small else (64, (480, 640))
    pairs, overheads = [], []
    with tempfile.TemporaryDirectory() as name:
        fleet = Fleet(Path(name), images, size)
        for turn in range(1 if small else 3):
            seconds = {}
            for takers in (1, 2) if turn % 2 else (2, 1):
                seconds[takers] = fleet.seconds(takers, 2 if small else 4)
                fleet.forget()
            pairs.append((seconds[2], seconds[1]))
        fleet.seconds(1, images)  # from here on they are stored, and each shard is looked up alone
        for _ in range(1 if small else 3):
            one, all_ = fleet.seconds(1, 1, shards=1), fleet.seconds(1, 1)
            overheads.append(((all_ - one) / (images - 1), MOST_SECONDS))
        fleet.close()
    what = f"hierarchy proposals of {images} images of {size[1]}×{size[0]}"
    return [
        row(f"{what}, two takers", pairs, unit="s", against="one taker", goal=1.8),
        row("a shard beside its images", overheads, unit="s", against="the bar", goal=1),
    ]
