"""A data set in one archive, with its subsets: imported, kept by versions, in exports, trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.db.models import Dataset
from app.settings import Settings
from sapnet.data.annotations.coco import load_points, read_truth
from tests.data.folders import FOLDERS, SQUARE, write
from worker.jobs.execute import execute
from worker.jobs.points import points_document
from worker.runtime.types import Outcome, WorkerContext

LATER = {"Prefer": "respond-async"}


def packed(kit: Any, kind: str, root: Path) -> bytes:
    write(root, FOLDERS[kind])
    files = (path for path in root.rglob("*") if path.is_file())
    return kit.zipped({path.relative_to(root).as_posix(): path.read_bytes() for path in files})


def split(client: TestClient, dataset: str) -> dict[str, str | None]:
    listed = client.get(f"/datasets/{dataset}/images").json()["images"]
    return {image["file_name"]: image["subset"] for image in listed}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part", "later"),
    [
        ("coco, a folder a subset", "images", True),
        ("coco, annotations apart", "annotations", False),
        ("yolo", "images", False),
        ("voc", "images", False),
        ("datumaro", "annotations", True),
    ],
)
def test_one_archive_is_a_data_set(
    client: TestClient,
    app: FastAPI,
    settings: Settings,
    kit: Any,
    tmp_path: Path,
    kind: str,
    part: str,
    later: bool,
) -> None:
    files = [(part, ("set.zip", packed(kit, kind, tmp_path / "in")))]
    answer = client.post("/datasets", files=files, headers=LATER if later else {})
    assert answer.status_code == (202 if later else 201), answer.text
    url = f"/datasets/{answer.json()['id']}"
    if later:
        job = answer.json()["report"]["progress"]["job_id"]
        worker = WorkerContext(settings, app.state.database, app.state.storage)
        assert execute(job, worker) is Outcome.ENDED
    found = client.get(url).json()
    assert found["status"] == "ready", found
    assert found["report"]["subsets"] == {"train": 2, "val": 1, "test": 1}
    assert sorted(map(str, split(client, found["id"]).values())) == [
        "test",
        "train",
        "train",
        "val",
    ]
    assert found["report"]["truth"] == (None if kind == "voc" else "annotations")
    listed = client.get(f"{url}/annotations").json()["annotations"]
    assert [a["bbox"] for a in listed] == [pytest.approx([8, 6, 12, 12], abs=1e-4)] * 4
    if found["report"]["truth"]:
        with app.state.database.read() as session:
            sha = session.get_one(Dataset, found["id"]).truth_sha
        truth = read_truth(app.state.storage.local_path(sha))
        assert truth["annotations"][0]["segmentation"][0] == pytest.approx(SQUARE, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "raw", "detail"),
    [
        ("images", b"PK\x03\x04 broken", "is refused"),
        ("images", None, "no annotations in it"),
        ("images", b"no archive", "'annotations' is missing"),
        ("annotations", b"{}", "'images' is missing"),
    ],
)
def test_what_is_no_data_set(
    client: TestClient, kit: Any, part: str, raw: bytes | None, detail: str
) -> None:
    raw = kit.zipped({"a.png": kit.image(), "notes.txt": b"x"}) if raw is None else raw
    answer = client.post("/datasets", files=[(part, ("set.zip", raw))])
    assert answer.status_code == 422
    assert any(detail in error["detail"] for error in answer.json()["errors"]), answer.text


@pytest.mark.slow
def test_the_split_of_a_parent_stays(client: TestClient, kit: Any) -> None:
    document = kit.points(images=3)
    for image, subset in zip(document["images"], ("train", "val", "test"), strict=True):
        image |= {"subset": subset, "group": f"slide {image['id'] % 2}"}
    parent = kit.upload(client, document, kit.images(3)).json()["id"]
    listed = client.get(f"/datasets/{parent}/images").json()["images"]
    assert [(i["subset"], i["group"]) for i in listed] == [
        ("train", "slide 1"),
        ("val", "slide 0"),
        ("test", "slide 1"),
    ]
    child = kit.upload(client, kit.points(images=3, each=1), None, parent=parent).json()
    assert list(split(client, child["id"]).values()) == ["train", "val", "test"]
    assert child["report"]["subsets"] == {"train": 1, "val": 1, "test": 1}
    document["images"][0]["subset"] = "test"
    other = kit.upload(client, document, None, parent=parent).json()
    assert list(split(client, other["id"]).values()) == ["test", "val", "test"]


@pytest.mark.slow
def test_a_training_gets_the_split(
    client: TestClient, app: FastAPI, settings: Settings, kit: Any, tmp_path: Path
) -> None:
    document = kit.points(images=3)
    document["images"][1] |= {"subset": "val", "group": "a"}
    dataset = kit.upload(client, document, kit.images(3)).json()["id"]
    path = tmp_path / "points.json"
    with app.state.database.read() as session:
        path.write_text(json.dumps(points_document(session, dataset)))
    images = load_points(path).images
    assert [(i.subset, i.group) for i in images] == [(None, None), ("val", "a"), (None, None)]
