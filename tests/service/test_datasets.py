"""Upload, look up, delete: the right cases."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

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
    Model,
    PseudoMask,
)
from app.settings import Settings

pytestmark = pytest.mark.both_stacks

Stored = Callable[[str], set[str]]


def tarred(files: dict[str, bytes], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.slow
def test_the_contract(client: TestClient, kit: Any) -> None:
    answer = kit.upload(client, kit.points(), kit.zipped(kit.images()))
    assert answer.status_code == 201
    body = answer.json()
    assert answer.headers["location"] == f"/datasets/{body['id']}"
    assert (body["name"], body["status"]) == ("cells", "ready")
    assert (body["images"], body["annotations"]) == (2, 4)
    assert body["categories"] == [
        {"id": 0, "name": "dog", "annotations": 2},
        {"id": 7, "name": "cat", "annotations": 2},
    ]
    assert body["created_at"].endswith("Z")
    assert client.get(answer.headers["location"]).json() == body


@pytest.mark.slow
@pytest.mark.parametrize("pack", ["zip", "tar", "tar.gz", "files", "two archives"])
def test_every_way_to_send_images(client: TestClient, kit: Any, pack: str) -> None:
    files = kit.images()
    images: Any = files
    if pack == "zip":
        images = kit.zipped(files)
    elif pack == "tar":
        images = tarred(files)
    elif pack == "tar.gz":
        images = tarred(files, "w:gz")
    elif pack == "two archives":
        images = {f"{n}.zip": kit.zipped({n: data}) for n, data in files.items()}
    answer = kit.upload(client, kit.points(), images)
    assert answer.status_code == 201, answer.text
    url = answer.headers["location"]
    for i in (1, 2):
        assert client.get(f"{url}/images/{i}").content == files[f"{i}.png"]


@pytest.mark.slow
def test_annotations_as_a_text_field_and_no_name(client: TestClient, kit: Any) -> None:
    answer = client.post(
        "/datasets",
        data={"annotations": json.dumps(kit.points())},
        files={"images": ("i.zip", kit.zipped(kit.images()))},
    )
    assert answer.status_code == 201
    assert answer.json()["name"] == "data set"


@pytest.mark.slow
def test_names_in_archives(client: TestClient, kit: Any) -> None:
    """Whole paths first, then the end of a path, then a basename that only one image has."""
    names = ["a/x.png", "b/x.png", "deep/only.png", "Ä.png"]
    document = kit.points(4, 1)
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    data = {name: kit.image(seed=i) for i, name in enumerate(names)}
    archive = kit.zipped(
        {
            "top/a/x.png": data["a/x.png"],
            "b/x.png": data["b/x.png"],
            "only.png": data["deep/only.png"],
            "top/A\u0308.png": data["Ä.png"],  # as macOS writes it
            "__MACOSX/b/x.png": b"resource fork",
            ".hidden/b/x.png": b"hidden",
            "notes.txt": b"not asked for",
        }
    )
    answer = kit.upload(client, document, archive)
    assert answer.status_code == 201, answer.text
    report = answer.json()["report"]
    assert report["ignored_files"] == {"count": 1, "examples": ["notes.txt"]}
    for i, name in enumerate(names, start=1):
        got = client.get(f"{answer.headers['location']}/images/{i}").content
        assert got == data[name], name


@pytest.mark.slow
def test_the_better_fit_wins_whatever_the_order(client: TestClient, kit: Any) -> None:
    right, other = kit.image(seed=1), kit.image(seed=9)
    for names in (["1.png", "old/1.png"], ["old/1.png", "1.png"]):
        archive = kit.zipped({n: right if n == "1.png" else other for n in names})
        answer = kit.upload(client, kit.points(1), archive)
        assert answer.status_code == 201, answer.text
        assert answer.json()["report"]["ignored_files"]["examples"] == ["old/1.png"]
        assert client.get(f"{answer.headers['location']}/images/1").content == right


@pytest.mark.slow
def test_odd_but_right(client: TestClient, kit: Any) -> None:
    """Undeclared sizes, an image without annotations, crowds, twin points, a 1×1 image."""
    document = kit.points(2, 1, categories=[{"id": 0, "name": "dog"}])
    document["images"] = [{"id": i, "file_name": f"{i}.png"} for i in (1, 2, 3)]
    document["annotations"][0]["point"] = [0, 0]
    document["annotations"] += [
        {"id": 900, "image_id": 2, "category_id": 0, "point": [1.5, 2.5]},
        {"id": 901, "image_id": 2, "category_id": 0, "iscrowd": 1},
    ]
    images = kit.images(3) | {"1.png": kit.image(1, 1)}
    answer = kit.upload(client, document, images)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["images"], body["annotations"]) == (3, 3)
    assert body["report"]["images_without_annotations"] == 1
    assert body["report"]["crowd"] == 1
    assert [w["pointer"] for w in body["report"]["warnings"]] == ["/annotations/2"]
    listed = client.get(f"{answer.headers['location']}/images").json()["images"]
    assert [(i["width"], i["height"], i["annotations"]) for i in listed] == [
        (1, 1, 1),
        (40, 30, 2),
        (40, 30, 0),
    ]


@pytest.mark.slow
def test_300_objects_and_one(client: TestClient, kit: Any) -> None:
    for count in (1, 300):
        document = kit.points(1, count)
        for i, annotation in enumerate(document["annotations"]):
            annotation["point"] = [i % 40, i // 40]
        answer = kit.upload(client, document, kit.images(1))
        assert answer.status_code == 201, answer.text
        assert answer.json()["annotations"] == count


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_images_come_back_as_sent(client: TestClient, kit: Any, kind: str) -> None:
    data = kit.image(kind=kind)
    url = kit.upload(client, kit.points(1), {"1.png": data}).headers["location"] + "/images/1"
    answer = client.get(url)
    assert answer.content == data
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    again = client.get(url, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    part = client.get(url, headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, data[2:6])
    beyond = client.get(url, headers={"range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-type"] == "application/problem+json"
    assert beyond.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.slow
def test_pages_follow_each_other(client: TestClient, kit: Any) -> None:
    ids = []
    for _ in range(5):
        ids.append(kit.upload(client, kit.points(1), kit.images(1)).json()["id"])
    url, seen = "/datasets?limit=2", []
    while url:
        answer = client.get(url)
        seen += [d["id"] for d in answer.json()["datasets"]]
        url = answer.links.get("next", {}).get("url", "")
        assert bool(url) == (answer.json()["next"] is not None)
    assert sorted(seen) == sorted(ids)
    assert len(seen) == 5

    url = f"/datasets/{kit.upload(client, kit.points(5), kit.images(5)).json()['id']}/images"
    first = client.get(url, params={"limit": 3}).json()
    second = client.get(url, params={"limit": 3, "cursor": first["next"]}).json()
    assert [i["id"] for i in first["images"] + second["images"]] == [1, 2, 3, 4, 5]
    assert second["next"] is None


@pytest.mark.slow
def test_truth_sent_and_truth_within(client: TestClient, kit: Any) -> None:
    document = kit.points(1)
    square = {"segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    truth = document | {"annotations": [a | square for a in document["annotations"]]}
    sent = kit.upload(client, document, kit.images(1), truth=truth).json()
    within = kit.upload(client, truth, kit.images(1)).json()
    foreign = truth | {"annotations": [truth["annotations"][0] | {"id": 5}]}
    unrelated = kit.upload(client, document, kit.images(1), truth=foreign).json()
    assert sent["report"]["truth"] == "truth"
    assert within["report"]["truth"] == "annotations"
    assert kit.upload(client, document, kit.images(1)).json()["report"]["truth"] is None
    assert [w["part"] for w in unrelated["report"]["warnings"]] == ["truth"]


@pytest.mark.slow
def test_a_correction_names_its_parent(client: TestClient, kit: Any) -> None:
    parent = kit.upload(client, kit.points(1), kit.images(1)).json()["id"]
    child = kit.upload(client, kit.points(1), kit.images(1), parent=parent).json()
    assert child["parent_id"] == parent
    wrong = kit.upload(client, kit.points(1), kit.images(1), parent="nobody")
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["part"] == "parent"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "hint"),
    [(DatasetStatus.IMPORTING, "wait for it"), (DatasetStatus.INVALID, "name one that is ready")],
)
def test_a_parent_that_is_not_ready(
    client: TestClient, app: FastAPI, kit: Any, status: DatasetStatus, hint: str
) -> None:
    parent = kit.upload(client, kit.points(1), kit.images(1)).json()["id"]
    with app.state.database.begin() as session:
        session.execute(update(Dataset).values(status=status))
    (error,) = kit.upload(client, kit.points(1), kit.images(1), parent=parent).json()["errors"]
    assert (error["part"], error["detail"]) == ("parent", f"the data set is {status}")
    assert error["hint"] == hint


@pytest.mark.slow
def test_content_is_stored_once_and_goes_with_its_last_user(
    client: TestClient,
    settings: Settings,
    kit: Any,
    app: FastAPI,
    stored: Stored,
    remove_deleted: Callable[[Settings], None],
) -> None:
    same = kit.image(seed=1)
    first = kit.upload(client, kit.points(2), {"1.png": same, "2.png": same}).json()["id"]
    assert len(stored(settings.storage)) == 2  # one image, one document
    second = kit.upload(client, kit.points(1), {"1.png": same}).json()["id"]
    assert len(stored(settings.storage)) == 3
    assert client.delete(f"/datasets/{first}").status_code == 204
    remove_deleted(settings)
    assert hashlib.sha256(same).hexdigest() in stored(settings.storage)
    assert client.get(f"/datasets/{second}/images/1").content == same
    assert client.delete(f"/datasets/{second}").status_code == 204
    remove_deleted(settings)
    assert stored(settings.storage) == set()
    assert client.get(f"/datasets/{first}").status_code == 404
    assert client.delete(f"/datasets/{first}").status_code == 404
    with app.state.database.read() as session:
        for table in (Dataset, Image, Annotation, Category, BlobPin):
            assert session.scalar(select(func.count()).select_from(table)) == 0, table


@pytest.mark.slow
def test_delete_asks_about_jobs(
    client: TestClient,
    settings: Settings,
    kit: Any,
    app: FastAPI,
    stored: Stored,
    remove_deleted: Callable[[Settings], None],
) -> None:
    dataset = kit.upload(client, kit.points(1), kit.images(1)).json()["id"]
    storage, database = app.state.storage, app.state.database
    with database.begin() as session:
        job = Job(dataset_id=dataset, method="sapnet++", preset="cpu", seed=0, request={})
        session.add(job)
    url = f"/datasets/{dataset}"
    refused = client.delete(url, params={"force": True})
    assert (refused.status_code, refused.json()["jobs"]) == (409, [job.id])

    with database.begin() as session:
        known = session.get_one(Job, job.id)
        known.state, known.finished_at = JobState.SUCCEEDED, now()
        session.add(
            Model(
                job_id=job.id,
                name="m",
                categories=[],
                sha256=storage.put_bytes(b"weights"),
                size=7,
                meta={},
            )
        )
        session.add(
            PseudoMask(
                job_id=job.id,
                annotation_id=100,
                image_id=1,
                category_id=0,
                segmentation={},
                x=0,
                y=0,
                w=1,
                h=1,
                area=1,
                quality=1,
                source="refined",
            )
        )
    assert client.delete(url).status_code == 409
    assert client.delete(url, params={"force": True}).status_code == 204
    remove_deleted(settings)
    assert stored(settings.storage) == set()
    with database.read() as session:
        for table in (Job, Model, PseudoMask):
            assert session.scalar(select(func.count()).select_from(table)) == 0, table
