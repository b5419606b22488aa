"""How long others wait while a training's masks are recorded.

    python benchmarks/recording.py [--masks 200000] [--database-url postgresql+psycopg://...]

Records masks by the worker's own function, of real sizes (2.3 KB a line), into an empty database,
SQLite by default. Beside it another job's lease is renewed and small rows are written, again and
again; printed is the longest that each waited.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import typer

from app.db import migrate as schema
from app.db.models import Dataset, DatasetStatus, Job
from app.db.session import Database
from app.settings import Settings
from app.storage.store import make_storage
from worker.jobs.context import JobContext
from worker.jobs.train import record_masks
from worker.runtime.lease import Lease, acquire_lease, renew_lease

PAUSE = 0.05  # seconds between two of the others' writes


def main(masks: int = 200_000, database_url: str | None = None) -> None:
    """Measure, and print a table of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(_env_file=None, data_dir=folder, database_url=database_url)  # type: ignore[call-arg]
        database = Database(settings.database)
        schema.upgrade(database)
        ours, other = (_leased(database, settings, n) for n in range(2))
        delivered = folder / "pseudo_masks.ndjson"
        _write(delivered, masks)

        def renew() -> None:
            with database.begin() as session:
                renew_lease(session, other, settings)

        def create() -> None:
            with database.begin() as session:
                session.add(_dataset("small"))

        waits: dict[str, list[float]] = {"another job's heartbeat": [], "a new data set": []}
        ended = threading.Event()
        threads = [
            threading.Thread(target=_again, args=(action, seconds, ended))
            for action, seconds in zip((renew, create), waits.values(), strict=True)
        ]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        record_masks(JobContext(database, make_storage(settings), settings, ours), delivered)
        seconds = time.perf_counter() - began
        ended.set()
        for thread in threads:
            thread.join()
        database.dispose()
    print(f"{masks:,} masks in {seconds:.1f} s, {masks / seconds:,.0f} a second\n")
    print("| beside it | times | longest | 99 % within |\n|---|---|---|---|")
    for what, found in waits.items():
        found.sort()
        within = found[int(0.99 * (len(found) - 1))]
        print(f"| {what} | {len(found):,} | {found[-1]:.2f} s | {within:.2f} s |")


def _again(action: Callable[[], None], seconds: list[float], ended: threading.Event) -> None:
    while not ended.wait(PAUSE):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)


def _dataset(name: str) -> Dataset:
    return Dataset(
        name=name,
        status=DatasetStatus.READY,
        images=1,
        annotations=1,
        report={},
        document_sha="0" * 64,
    )


def _leased(database: Database, settings: Settings, number: int) -> Lease:
    with database.begin() as session:
        dataset = _dataset(f"of job {number}")
        session.add(dataset)
        session.flush()
        job = Job(dataset_id=dataset.id, method="consensus", preset="cpu", seed=0, request={})
        session.add(job)
        session.flush()
        job_id = job.id
    lease = acquire_lease(database, job_id, f"worker {number}", settings)
    assert lease is not None
    return lease


def _write(path: Path, masks: int) -> None:
    """Lines as a run delivers them: six RLEs of 330 bytes each."""
    rle = {"size": [480, 640], "counts": "Z" * 330}
    candidates = [{"index": n, "segmentation": rle, "probability": 0.1} for n in range(4)]
    with path.open("w") as file:
        for number in range(masks):
            line = {
                "id": number,
                "image_id": number // 7,
                "category_id": number % 80,
                "segmentation": rle,
                "bbox": [1.0, 2.0, 30.0, 40.0],
                "area": 900,
                "quality": 0.5,
                "source": "selected",
                "selected": rle,
                "refined": None,
                "proposal_source": "sam",
                "doubts": {"support": 0.5},
                "candidates": candidates,
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    typer.run(main)
