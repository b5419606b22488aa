"""A deleted data set is gone at once; a worker removes its rows and files a batch at a time."""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, func, insert, select
from starlette.testclient import TestClient

from app.auth import keys
from app.auth.keys import Scope
from app.datasets.removal import remove_deleted
from app.db.columns import Base, now
from app.db.models import (
    Annotation,
    BlobPin,
    Category,
    Dataset,
    DatasetStatus,
    Export,
    Image,
    Job,
    JobEvent,
    JobKind,
    JobState,
    Model,
    PseudoMask,
    Upload,
    UploadPiece,
)
from app.db.session import Database
from app.jobs.submit import hold_dataset
from app.main import create_app
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import FolderStorage, Storage
from app.uploads import service as uploads

Remove = Callable[[Settings], None]
MANY = 1_203  # rows: three batches
FILES = 20  # that the images are: storing one takes its time
pytestmark = pytest.mark.slow
MOST = 500  # rows that one transaction may change


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
def storage(app: FastAPI) -> Storage:
    storage: Storage = app.state.storage
    return storage


def large(database: Database, storage: Storage, owner: str | None = None) -> str:
    """A data set of MANY images, with a training, its masks and model, and an export."""
    shas = [storage.put_bytes(f"{owner} {i}".encode()) for i in range(FILES)]
    dataset = Dataset(
        owner=owner,
        name="large",
        status=DatasetStatus.READY,
        images=MANY,
        annotations=MANY,
        bytes=1_000,
        report={},
        document_sha=storage.put_bytes(b"{}"),
    )
    with database.begin() as session:
        session.add(dataset)
        session.flush()
        of = {"dataset_id": dataset.id}
        job = Job(**of, method="sapnet", preset="cpu", seed=0, request={}, state=JobState.SUCCEEDED)
        maker = Job(
            **of,
            kind=JobKind.EXPORT,
            method="export",
            preset="",
            seed=0,
            request={"format": "coco", "min_quality": 0.0, "images": False, "simplify": 0.0},
            state=JobState.SUCCEEDED,
        )
        session.add_all([Category(**of, category_id=1, name="cell", annotations=MANY), job, maker])
        session.flush()
        model = Model(
            job_id=job.id,
            name="m",
            categories=[],
            size=500,
            meta={},
            sha256=storage.put_bytes(f"weights of {owner}".encode()),
        )
        export = Export(id=maker.id, job_id=job.id, sha256=storage.put_bytes(b"export"), size=6)
        session.add_all([model, export])
        job.model_id = model.id
        image = {**of, "width": 40, "height": 30, "annotations": 1}
        at = {"x": 1.0, "y": 2.0}
        mask = {
            "segmentation": {},
            "area": 1.0,
            "quality": 0.5,
            "source": "refined",
            "w": 1,
            "h": 1,
        }
        numbers = range(MANY)
        for table, rows in (
            (
                Image,
                [
                    {**image, "image_id": i, "file_name": f"{i}.png", "sha256": shas[i % FILES]}
                    for i in numbers
                ],
            ),
            (
                Annotation,
                [
                    {**of, **at, "annotation_id": i, "image_id": i, "category_id": 1}
                    for i in numbers
                ],
            ),
            (
                PseudoMask,
                [
                    {
                        **at,
                        **mask,
                        "job_id": job.id,
                        "annotation_id": i,
                        "image_id": i,
                        "category_id": 1,
                    }
                    for i in numbers
                ],
            ),
            (
                JobEvent,
                [
                    {
                        "job_id": job.id,
                        "seq": i + 1,
                        "moment": now(),
                        "attempt": 1,
                        "type": "progress",
                        "data": {},
                    }
                    for i in numbers
                ],
            ),
        ):
            session.execute(insert(table), rows)
    return dataset.id


def counts(database: Database) -> dict[str, int]:
    """Rows of every table that has any."""
    with database.read() as session:
        rows = {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name != "api_key"
        }
    return {name: count for name, count in rows.items() if count}


def of_kind(database: Database, kind: type[Base], dataset_id: str) -> str:
    table: Any = kind
    with database.read() as session:
        query = select(table.id)
        if kind is Job:
            query = query.where(Job.dataset_id == dataset_id, Job.kind == JobKind.TRAIN)
        elif kind is Model:
            query = query.join(Job, Job.id == Model.job_id).where(Job.dataset_id == dataset_id)
        return str(session.scalars(query.limit(1)).one())


@pytest.mark.both_stacks
@pytest.mark.parametrize("scope", [None, Scope.WRITE, Scope.ADMIN])
def test_it_is_hidden_at_once_with_all_that_hangs_on_it(
    client: TestClient, app: FastAPI, database: Database, storage: Storage, scope: Scope | None
) -> None:
    owner = "ann" if scope else None
    dataset_id = large(database, storage, owner)
    if scope is not None:
        with database.begin() as session:
            key, _ = keys.create(session, "ann", scope)
        client.headers["Authorization"] = f"Bearer {key}"
    job_id = of_kind(database, Job, dataset_id)
    model_id = of_kind(database, Model, dataset_id)
    export_id = of_kind(database, Export, dataset_id)
    with database.begin() as session:
        heir = Dataset(
            owner=owner,
            name="heir",
            status=DatasetStatus.READY,
            parent_id=dataset_id,
            images=0,
            annotations=0,
            report={},
            document_sha="0" * 64,
        )
        session.add(heir)
    url = f"/datasets/{dataset_id}"
    paths = [
        url,
        f"{url}/images",
        f"{url}/images/1",
        f"{url}/annotations",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/pseudo-masks",
        f"/jobs/{job_id}/events?limit=1",
        f"/jobs/{job_id}/exports",
        f"/models/{model_id}",
        f"/exports/{export_id}",
    ]
    as_json = {"accept": "application/json"}
    assert {client.get(path, headers=as_json).status_code for path in paths} == {200}
    assert client.delete(url).status_code == 409
    rows = counts(database)
    assert client.delete(url, params={"force": True}).status_code == 204
    assert counts(database) == rows, "nothing is removed in the request"

    assert {client.get(path, headers=as_json).status_code for path in paths} == {404}
    assert client.delete(url, params={"force": True}).status_code == 404
    assert [d["id"] for d in client.get("/datasets").json()["datasets"]] == [heir.id]
    assert client.get(f"/datasets/{heir.id}").json()["parent_id"] is None
    assert client.get("/jobs").json()["jobs"] == []
    assert client.get("/models").json()["models"] == []
    train = {"dataset_id": heir.id, "from_model": model_id}
    assert client.post("/jobs/train", json=train).status_code == 404
    assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 404
    assert client.post(f"/jobs/{job_id}/exports", json={"format": "coco"}).status_code == 404
    asked = {"model": model_id, "dataset": heir.id}
    assert client.post("/predict", json=asked).status_code == 404
    if scope is not Scope.WRITE:
        text = client.get("/metrics").text
        assert "sapnet_datasets 1.0" in text
        assert "sapnet_datasets_removing 1.0" in text
        assert 'sapnet_jobs{state="succeeded"} 0.0' in text


@pytest.mark.both_stacks
def test_rows_and_files_go_and_what_others_name_stays(
    client: TestClient,
    database: Database,
    storage: Storage,
    settings: Settings,
    stored: Any,
    remove_deleted: Remove,
) -> None:
    kept = large(database, storage)
    rows, files = counts(database), stored(settings.storage)
    gone = large(database, storage, "ann")
    shared = storage.put_bytes(b"None 7")  # an image of the other data set's
    with database.begin() as session:
        row = session.scalars(select(Image).where(Image.dataset_id == gone).limit(1)).one()
        before, row.sha256 = row.sha256, shared
    storage.delete(before)
    assert client.delete(f"/datasets/{gone}", params={"force": True}).status_code == 204
    remove_deleted(settings)
    assert counts(database) == rows
    assert stored(settings.storage) == files
    assert client.get(f"/datasets/{kept}/images", params={"limit": 1}).json()["images"]


@pytest.mark.both_stacks
def test_no_transaction_changes_more_than_a_batch(
    client: TestClient, database: Database, storage: Storage, settings: Settings
) -> None:
    dataset_id = large(database, storage)
    client.delete(f"/datasets/{dataset_id}", params={"force": True})
    changed: list[int] = [0]

    def began(*_: Any) -> None:
        changed.append(0)

    def executed(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            changed[-1] += cursor.rowcount

    event.listen(database.engine, "begin", began)
    event.listen(database.engine, "after_cursor_execute", executed)
    remove_deleted(database)
    blobs.clean_up(database, storage)
    assert counts(database) == {}
    assert sum(changed) > 4 * MANY
    assert max(changed) <= MOST


class Slipping(FolderStorage):
    """A storage that is cut off in every second call, and takes lists as S3 does."""

    deletes_a_call = 500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.calls: list[int] = []

    def delete_many(self, shas: Collection[str]) -> None:
        self.calls.append(len(shas))
        for sha in list(shas)[: len(shas) // 2] if len(self.calls) % 2 else shas:
            super().delete_many([sha])
        if len(self.calls) % 2:
            raise OSError("cut off")


def test_whoever_comes_next_goes_on(
    client: TestClient, database: Database, storage: Storage, settings: Settings, stored: Any
) -> None:
    """A worker that dies at any moment leaves the rest to the next one: rows, then files."""
    dataset_id = large(database, storage)
    shas = [hashlib.sha256(f"own {i}".encode()).hexdigest() for i in range(MANY)]
    for sha in shas:
        path = Path(settings.storage) / sha[:2] / sha
        path.parent.mkdir(exist_ok=True)
        path.write_text("own")
    with database.begin() as session:
        for image, sha in zip(session.scalars(select(Image)), shas, strict=True):
            image.sha256 = sha
    for i in range(FILES):
        storage.delete(hashlib.sha256(f"None {i}".encode()).hexdigest())
    client.delete(f"/datasets/{dataset_id}", params={"force": True})
    slipping = Slipping(Path(settings.storage))
    seen = [sum(counts(database).values())]
    while "dataset" in counts(database):
        asked: Iterator[bool] = iter([False] * 16)
        assert remove_deleted(database, lambda: next(asked, True)) in (0, 1)  # noqa: B023
        seen.append(sum(n for name, n in counts(database).items() if name != "blob_pin"))
        assert seen[-1] < seen[-2]
        assert client.get(f"/datasets/{dataset_id}").status_code == 404
    assert len(seen) > 4
    while counts(database):
        try:
            blobs.clean_up(database, slipping)
        except OSError:
            continue
    assert stored(settings.storage) == set()
    assert len(slipping.calls) < 20, "files go by lists"


@pytest.mark.both_stacks
def test_two_that_remove_at_once(
    client: TestClient, database: Database, storage: Storage, settings: Settings, stored: Any
) -> None:
    dataset_id = large(database, storage)
    client.delete(f"/datasets/{dataset_id}", params={"force": True})
    failures: list[BaseException] = []

    def work() -> None:
        try:
            remove_deleted(database)
            blobs.clean_up(database, storage)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    blobs.clean_up(database, storage)
    assert counts(database) == {}
    assert stored(settings.storage) == set()


class Slow(FolderStorage):
    """A disk that is busy: each call takes longer than a transaction may."""

    def delete_many(self, shas: Collection[str]) -> None:
        time.sleep(0.25)
        super().delete_many(shas)


def test_a_slow_disk_keeps_no_transaction_long(
    database: Database, storage: Storage, settings: Settings, stored: Any
) -> None:
    shas = [storage.put_bytes(str(i).encode()) for i in range(25)]
    with database.begin() as session:
        blobs.abandon(session, shas)
    commits: list[int] = []
    event.listen(database.engine, "commit", lambda _connection: commits.append(1))
    assert blobs.clean_up(database, Slow(Path(settings.storage))) == 25
    assert len(commits) >= 3, "ten files a call, a call a transaction"
    assert stored(settings.storage) == set()
    assert counts(database) == {}


def test_waiting_for_ones_turn_is_no_time_held(
    database: Database, storage: Storage, settings: Settings, stored: Any
) -> None:
    """Beside others who write, each transaction deletes as many files as on an idle service."""
    with database.begin() as session:
        blobs.abandon(session, [storage.put_bytes(str(i).encode()) for i in range(60)])
    commits: list[int] = []
    event.listen(database.engine, "begin", lambda _connection: time.sleep(0.25))
    event.listen(database.engine, "commit", lambda _connection: commits.append(1))
    assert blobs.clean_up(database, storage) == 60
    assert len(commits) < 6, "one for each ten files"
    assert stored(settings.storage) == set()


def test_quotas_are_free_at_once(
    make_settings: Callable[..., Settings], kit: Any, remove_deleted: Remove
) -> None:
    settings = make_settings(quota_datasets=1, quota_bytes=10_000, key_cache_seconds=0)
    app = create_app(settings)
    with TestClient(app) as client:
        with app.state.database.begin() as session:
            key, _ = keys.create(session, "ann", Scope.WRITE)
        client.headers["Authorization"] = f"Bearer {key}"
        form = kit.points(1), {"1.png": kit.image()}
        url = kit.upload(client, *form).headers["location"]
        assert kit.upload(client, *form).status_code == 429
        assert client.delete(url).status_code == 204
        again = kit.upload(client, *form)
        assert again.status_code == 201, again.text
        remove_deleted(settings)
        assert client.get(f"{again.headers['location']}/images/1").status_code == 200


@pytest.mark.both_stacks
def test_what_is_added_and_what_is_deleted_take_turns(
    client: TestClient, database: Database, storage: Storage
) -> None:
    """A job that is being made while its data set is deleted keeps it, or is not made."""
    dataset_id = large(database, storage)
    answers: list[int] = []

    def delete() -> None:
        answer = client.delete(f"/datasets/{dataset_id}", params={"force": True})
        answers.append(answer.status_code)

    with database.begin() as session:
        hold_dataset(session, dataset_id)
        thread = threading.Thread(target=delete)
        thread.start()
        job = Job(dataset_id=dataset_id, method="sapnet", preset="cpu", seed=0, request={})
        session.add(job)
        session.flush()
        assert answers == []
    thread.join()
    assert answers == [409]
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 202
    assert client.delete(f"/datasets/{dataset_id}", params={"force": True}).status_code == 204


def test_an_import_that_needs_its_images_keeps_the_parent(
    client: TestClient, database: Database, storage: Storage
) -> None:
    parent = large(database, storage)
    files = {"annotations": ("points.json", b'{"images": [], "annotations": [], "categories": []}')}
    headers = {"Prefer": "respond-async"}
    heir = client.post("/datasets", data={"parent": parent}, files=files, headers=headers).json()
    job_id = heir["report"]["progress"]["job_id"]
    refused = client.delete(f"/datasets/{parent}", params={"force": True})
    assert (refused.status_code, refused.json()["jobs"]) == (409, [job_id])
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert client.delete(f"/datasets/{parent}", params={"force": True}).status_code == 204


@pytest.mark.both_stacks
def test_an_upload_of_many_pieces(
    client: TestClient,
    database: Database,
    storage: Storage,
    settings: Settings,
    stored: Any,
    remove_deleted: Remove,
) -> None:
    upload = uploads.begin(database, settings, length=10**6, filename="a", about="")
    shas = [storage.put_bytes(f"piece {i}".encode()) for i in range(FILES)]
    with database.begin() as session:
        rows = [
            {"upload_id": upload.id, "start": i, "size": 1, "sha256": shas[i % FILES]}
            for i in range(MANY)
        ]
        session.execute(insert(UploadPiece), rows)
    assert (
        client.delete(f"/uploads/{upload.id}", headers={"Tus-Resumable": "1.0.0"}).status_code
        == 204
    )
    assert counts(database)["upload_piece"] == MANY
    assert client.get(f"/uploads/{upload.id}").status_code == 404
    remove_deleted(settings)
    assert counts(database) == {}
    assert stored(settings.storage) == set()
    with database.read() as session:
        assert session.scalars(select(Upload)).all() == []
        assert session.scalars(select(BlobPin)).all() == []
