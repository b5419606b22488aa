"""Versions of a data set: images and classes added, removed, renamed and merged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.models import Annotation, Category, Dataset, DatasetStatus, Image
from app.db.session import Database
from app.masks import versions
from app.storage.store import Storage
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

pytestmark = [pytest.mark.both_stacks, pytest.mark.slow]

MASK = {"size": [30, 40], "counts": "0"}


def make(client: TestClient, dataset: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/datasets/{dataset}/versions", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/datasets/{made['id']}"
    assert made["parent_id"] == dataset
    return made


def faults(client: TestClient, dataset: str, **body: Any) -> list[str]:
    answer = client.post(f"/datasets/{dataset}/versions", json=body)
    assert answer.status_code == 422, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


def annotations(client: TestClient, dataset: str) -> dict[int, tuple[int, int]]:
    """Image and class of each annotation."""
    listed = client.get(f"/datasets/{dataset}/annotations").json()["annotations"]
    return {a["id"]: (a["image_id"], a["category_id"]) for a in listed}


def classes(made: dict[str, Any]) -> dict[int, tuple[str, int]]:
    return {c["id"]: (c["name"], c["annotations"]) for c in made["categories"]}


def images(client: TestClient, dataset: str) -> dict[int, tuple[str, int]]:
    listed = client.get(f"/datasets/{dataset}/images").json()["images"]
    return {i["id"]: (i["file_name"], i["annotations"]) for i in listed}


@pytest.fixture
def other(database: Database, storage: Storage, dataset_id: str) -> str:
    """One image of the id 12 and one of 7; annotations 501 and 3; classes cell (as 7) and rod."""
    sha = storage.put_bytes(b"another image")
    with database.begin() as session:
        dataset = Dataset(
            name="more",
            status=DatasetStatus.READY,
            images=2,
            annotations=2,
            bytes=5,
            report={},
            document_sha=storage.put_bytes(b"[]"),
        )
        session.add(dataset)
        session.flush()
        session.add_all(
            Category(dataset_id=dataset.id, category_id=i, name=name, annotations=1)
            for i, name in [(7, "cell"), (0, "rod")]
        )
        session.add_all(
            Image(
                dataset_id=dataset.id,
                image_id=i,
                file_name=f"other-{i}.png",
                width=40,
                height=30,
                annotations=1,
                sha256=sha,
                subset="val",
            )
            for i in (12, 7)
        )
        session.add_all(
            Annotation(dataset_id=dataset.id, annotation_id=a, image_id=i, category_id=c, x=1, y=2)
            for a, i, c in [(501, 12, 7), (3, 7, 0)]
        )
        return dataset.id


def test_images_are_removed_and_nothing_else_changes(
    client: TestClient, dataset_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "BATCH", 1)
    with database.begin() as session:
        kept = update(Annotation).where(Annotation.annotation_id == 900)
        session.execute(kept.values(segmentation=MASK, box=[1, 2, 3, 4], pointed=False))
    made = make(client, dataset_id, remove_images=[12])
    assert (made["name"], made["images"], made["annotations"]) == ("cells, version 2", 1, 1)
    assert images(client, made["id"]) == {99: ("99.png", 1)}
    assert classes(made) == {0: ("cell", 1), 7: ("dust", 0)}
    (row,) = client.get(f"/datasets/{made['id']}/annotations").json()["annotations"]
    assert (row["mask"], row["bbox"], row["pointed"]) == (MASK, [1, 2, 2, 2], False)
    assert client.get(f"/datasets/{made['id']}/images/99").content == b"an image"
    assert (made["report"]["points"], made["report"]["boxes"]) == (0, 1)
    assert images(client, dataset_id).keys() == {12, 99}


def test_classes_are_renamed_merged_removed_and_added(
    client: TestClient, dataset_id: str, database: Database, storage: Storage
) -> None:
    with database.begin() as session:
        session.execute(update(Dataset).values(truth_sha=storage.put_bytes(b"truth")))
    rename = [{"id": 0, "name": "nucleus"}]
    made = make(
        client, dataset_id, name="named", rename_classes=rename, add_classes=[{"name": "rod"}]
    )
    assert classes(made) == {0: ("nucleus", 2), 7: ("dust", 1), 8: ("rod", 0)}
    merged = make(client, made["id"], merge_classes=[{"id": 7, "into": 0}])
    assert classes(merged) == {0: ("nucleus", 3), 8: ("rod", 0)}
    assert set(annotations(client, merged["id"]).values()) == {(12, 0), (99, 0)}
    removed = make(client, made["id"], remove_classes=[7], add_classes=[{"name": "x", "id": -3}])
    assert classes(removed) == {0: ("nucleus", 2), 8: ("rod", 0), -3: ("x", 0)}
    assert annotations(client, removed["id"]).keys() == {501, 900}
    assert images(client, removed["id"])[12][1] == 1
    with database.read() as session:
        known = {
            name: session.get_one(Dataset, made_["id"]).truth_sha is not None
            for name, made_ in (("named", made), ("merged", merged), ("removed", removed))
        }
    assert known == {"named": True, "merged": False, "removed": False}


def test_another_data_set_is_taken_in(client: TestClient, dataset_id: str, other: str) -> None:
    made = make(client, dataset_id, add_datasets=[other])
    assert (made["images"], made["annotations"]) == (4, 5)
    assert classes(made) == {0: ("cell", 3), 7: ("dust", 1), 8: ("rod", 1)}
    listed = images(client, made["id"])
    assert {name for name, _ in listed.values()} == {
        "12.png",
        "99.png",
        "other-12.png",
        "other-7.png",
    }
    by_name = {name: id_ for id_, (name, _) in listed.items()}
    assert (by_name["12.png"], by_name["99.png"]) == (12, 99)
    rows = annotations(client, made["id"])
    assert {rows[id_] for id_ in (501, 502, 900)} == {(12, 0), (12, 7), (99, 0)}
    assert {pair for id_, pair in rows.items() if id_ not in (501, 502, 900)} == {
        (by_name["other-12.png"], 0),
        (by_name["other-7.png"], 8),
    }
    assert made["report"]["subsets"] == {"val": 2}
    added = client.get(f"/datasets/{made['id']}/images/{by_name['other-7.png']}")
    assert added.content == b"another image"
    assert faults(client, made["id"], add_datasets=[other]) == ["/add_datasets/0"]
    less = make(client, made["id"], remove_images=[by_name["other-12.png"], by_name["other-7.png"]])
    assert (less["images"], less["annotations"]) == (2, 3)
    assert client.delete(f"/datasets/{other}").status_code == 204
    assert client.get(f"/datasets/{made['id']}/images/{by_name['other-7.png']}").status_code == 200


def test_reviews_count_too(client: TestClient, done: str, dataset_id: str) -> None:
    headers = {"If-Match": '"0"'}
    client.patch(f"/masks/{done}.502", json={"decision": "reject"}, headers=headers)
    made = make(client, dataset_id, reviews=[done], rename_classes=[{"id": 7, "name": "grit"}])
    assert classes(made) == {0: ("cell", 2), 7: ("grit", 0)}
    assert made["report"]["corrections"]["rejected"] == 1
    assert (
        client.post(f"/datasets/{made['id']}/versions", json={"reviews": [done]}).status_code == 422
    )


def test_what_is_refused(
    client: TestClient, dataset_id: str, other: str, database: Database
) -> None:
    assert faults(client, dataset_id) == [""]
    assert faults(client, dataset_id, name="the same") == [""]
    assert faults(client, dataset_id, remove_images=[12, 13]) == ["/remove_images/1"]
    assert faults(client, dataset_id, remove_images=[12, 99]) == ["/remove_images"]
    assert faults(client, dataset_id, rename_classes=[{"id": 5, "name": "x"}]) == [
        "/rename_classes/0/id"
    ]
    assert faults(client, dataset_id, rename_classes=[{"id": 0, "name": "dust"}]) == [""]
    both = [{"id": 0, "into": 7}, {"id": 7, "into": 0}]
    assert faults(client, dataset_id, merge_classes=both)[0] == "/merge_classes/0/into"
    assert faults(client, dataset_id, remove_classes=[0, 7]) == ["/remove_classes"]
    assert faults(client, dataset_id, add_classes=[{"name": "x", "id": 7}]) == ["/add_classes/0/id"]
    assert faults(client, dataset_id, add_datasets=[dataset_id]) == ["/add_datasets/0"]
    assert faults(client, dataset_id, add_classes=[{"name": "cell"}]) == [""]
    twice = {"remove_classes": [7], "rename_classes": [{"id": 7, "name": "x"}]}
    assert faults(client, dataset_id, **twice) == [""]
    for path, body in (("none", {"remove_images": [1]}), (dataset_id, {"add_datasets": ["none"]})):
        assert client.post(f"/datasets/{path}/versions", json=body).status_code == 404
    with database.begin() as session:
        session.execute(update(Dataset).where(Dataset.id == other).values(status="importing"))
    body = {"add_datasets": [other]}
    assert client.post(f"/datasets/{dataset_id}/versions", json=body).status_code == 409
    assert len(client.get("/datasets").json()["datasets"]) == 2


def test_new_images_without_points_are_taken_in_and_labelled(
    client: TestClient,
    model_id: str,
    dataset_id: str,
    new_worker: Callable[..., WorkerContext],
    png: Callable[..., bytes],
) -> None:
    document: dict[str, Any] = {
        "images": [{"id": 12, "file_name": "new.png"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "object"}],
    }

    def post() -> Any:
        files = {"annotations": json.dumps(document), "images": ("new.png", png())}
        return client.post("/datasets", data={"name": "new"}, files=files)

    assert post().status_code == 422  # a document that lacks its annotations by mistake
    document["info"] = {"unannotated": True}
    new = post().json()
    assert (new["images"], new["annotations"]) == (1, 0), new
    answer = client.post("/jobs/train", json={"dataset_id": new["id"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/dataset_id")
    made = make(client, dataset_id, add_datasets=[new["id"]])
    assert classes(made) == {0: ("cell", 2), 7: ("dust", 1)}
    body = {"model": model_id, "dataset_id": made["id"]}
    job = client.post("/jobs/label", json=body).json()["id"]
    execute(job, new_worker())
    masks = client.get(f"/jobs/{job}/review").json()["masks"]
    assert {images(client, made["id"])[mask["image_id"]][0] for mask in masks} == {"new.png"}
    client.post(f"/jobs/{job}/review/accept", json={"min_quality": 0.9})
    taken = client.post(f"/jobs/{job}/corrections").json()
    assert taken["annotations"] == 5
