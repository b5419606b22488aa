"""Requests that are small to send and large to do: how long they take, and how long others wait.

    python benchmarks/large_requests.py [--images 100000] [--entries 200000] [--parts 100000]

The real service is started on an empty folder, SQLite and embedded. Beside each request a client
writes (POST /uploads) and one asks for /healthz, again and again; the longest that each waited is
told. The data set that is deleted is written to the database and the folder of blobs directly.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from sqlalchemy import func, insert, select

from app.db import migrate as schema
from app.db.columns import now
from app.db.models import (
    Annotation,
    BlobPin,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    JobState,
    MaskDecision,
    MaskStatus,
    PseudoMask,
)
from app.db.session import Database
from sapnet.utils.command_line import run

BATCH = 5_000
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
MASK = {"segmentation": {"size": [30, 40], "counts": [0, 20, 1180]}, "score": 0.5}


def main(
    images: int = 100_000, entries: int = 200_000, parts: int = 100_000, masks: int = 200_000
) -> None:
    """Measure, and print a table of Markdown."""
    print(f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")
    print("| request | status | seconds | longest write beside it | longest /healthz |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = Database(f"sqlite:///{folder / 'sapnet.db'}")
        schema.upgrade(database)
        large, small = dataset(database, folder, images), dataset(database, folder, 3)
        reviewed = training(database, dataset(database, folder, images + 1), images)
        with service(folder) as url:
            show(f"DELETE of {images:,} images", url, lambda c: c.delete(f"/datasets/{large}"))
            began = time.monotonic()
            waits = Waits(url)
            while left(database):
                time.sleep(0.2)
            seconds = time.monotonic() - began
            print(f"| its removal by the worker | | {seconds:.1f} | {waits.shown()} |", flush=True)
            archive, form = empty_entries(entries), many_parts(parts)
            files = [("annotations", ("p.json", b"{}")), ("images", ("i.zip", archive))]
            show(
                f"zip of {entries:,} empty entries, {len(archive) >> 20} MiB",
                url,
                lambda c: c.post("/datasets", files=files),
            )
            headers = {"content-type": "multipart/form-data; boundary=x"}
            show(
                f"form of {parts:,} parts, {len(form) >> 20} MiB",
                url,
                lambda c: c.post("/datasets", content=form, headers=headers),
            )
            given = {"kind": "given", "document": {"1": [MASK] * masks}}
            job = json.dumps({"dataset_id": small, "proposals": given}).encode()
            of_json = {"content-type": "application/json"}
            show(
                f"training with {len(job) >> 20} MiB of given masks",
                url,
                lambda c: c.post("/jobs/train", content=job, headers=of_json),
            )
            show("GET /jobs with it in the list", url, lambda c: c.get("/jobs"))
            show(
                f"new version of {images:,} images, each with a decided mask",
                url,
                lambda c: c.post(f"/jobs/{reviewed}/corrections"),
            )
        database.dispose()


class Waits:
    """Clients that ask beside a request, from now on; the longest that each has waited."""

    def __init__(self, url: str) -> None:
        self._ended = threading.Event()
        self._longest = [0.0, 0.0]
        asks: list[Callable[[httpx2.Client], object]] = [
            lambda client: client.post("/uploads", headers=TUS),
            lambda client: client.get("/healthz"),
        ]
        self._threads = [
            threading.Thread(target=self._ask, args=(url, index, ask))
            for index, ask in enumerate(asks)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str, index: int, ask: Callable[[httpx2.Client], object]) -> None:
        with httpx2.Client(base_url=url, timeout=600) as client:
            while not self._ended.wait(0.02):
                began = time.monotonic()
                ask(client)
                self._longest[index] = max(self._longest[index], time.monotonic() - began)

    def shown(self) -> str:
        """End the clients, and tell the two figures."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return " | ".join(f"{seconds:.2f} s" for seconds in self._longest)


def show(what: str, url: str, ask: Callable[[httpx2.Client], httpx2.Response]) -> None:
    waits = Waits(url)
    with httpx2.Client(base_url=url, timeout=600) as client:
        began = time.monotonic()
        try:
            status = str(ask(client).status_code)
        except httpx2.HTTPError as error:  # the line was closed before all was sent
            status = type(error).__name__
        seconds = time.monotonic() - began
    print(f"| {what} | {status} | {seconds:.2f} | {waits.shown()} |", flush=True)


def dataset(database: Database, folder: Path, images: int) -> str:
    """A data set with so many images, each a file of its own, and a point on each."""
    shas = [hashlib.sha256(str((images, i)).encode()).hexdigest() for i in range(images)]
    for sha in shas:
        path = folder / "blobs" / sha[:2] / sha
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    made = Dataset(
        name="d",
        status=DatasetStatus.READY,
        images=images,
        annotations=images,
        report={},
        document_sha=shas[0],
    )
    with database.begin() as session:
        session.add(made)
        session.flush()
        of = {"dataset_id": made.id}
        session.add(Category(**of, category_id=1, name="c", annotations=images))
        size = {"width": 40, "height": 30, "annotations": 1}
        for start in range(0, images, BATCH):
            numbers = range(start, min(start + BATCH, images))
            rows = [
                {**of, **size, "image_id": i, "file_name": f"{i}.png", "sha256": shas[i]}
                for i in numbers
            ]
            points = [
                {**of, "annotation_id": i, "image_id": i, "category_id": 1, "x": 1.0, "y": 1.0}
                for i in numbers
            ]
            session.execute(insert(Image), rows)
            session.execute(insert(Annotation), points)
    return made.id


def training(database: Database, dataset_id: str, masks: int) -> str:
    """A job that has delivered so many masks, each of them accepted."""
    job = Job(
        dataset_id=dataset_id,
        state=JobState.SUCCEEDED,
        method="sapnet++",
        preset="cpu",
        seed=0,
        request={},
    )
    mask = {"size": [30, 40], "counts": "0d0" * 30}
    with database.begin() as session:
        session.add(job)
        session.flush()
        for start in range(0, masks, BATCH):
            numbers = range(start, min(start + BATCH, masks))
            of = {"job_id": job.id}
            delivered = [
                {
                    **of,
                    "annotation_id": i,
                    "image_id": i,
                    "category_id": 1,
                    "segmentation": mask,
                    "quality": 0.5,
                    "source": "given",
                    **dict.fromkeys(("x", "y", "w", "h", "area"), 1.0),
                }
                for i in numbers
            ]
            status = {"status": MaskStatus.ACCEPTED, "revision": 1, "decided_at": now()}
            decided = [{**of, **status, "annotation_id": i} for i in numbers]
            session.execute(insert(PseudoMask), delivered)
            session.execute(insert(MaskDecision), decided)
    return job.id


def left(database: Database) -> int:
    """How much of the deleted data set is left: its row, and blobs that are to go."""
    with database.read() as session:
        deleted = select(func.count()).select_from(Dataset).where(Dataset.deleted_at <= now())
        pins = select(func.count()).select_from(BlobPin)
        return (session.scalar(deleted) or 0) + (session.scalar(pins) or 0)


def empty_entries(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(str(number), b"")
    return buffer.getvalue()


def many_parts(count: int) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="%d"\r\n\r\n\r\n'
    return b"".join(part % number for number in range(count)) + b"--x--\r\n"


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The service on the folder; its address. It ends with the block."""
    environment = {**os.environ, "SAPNET_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while " is at http" not in (folder / "log").read_text():
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.1)
        text = (folder / "log").read_text()
        yield text.split(" is at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    run(app)
