"""From decisions to a new version of the data set, and a training that goes on from the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pycocotools import mask as coco_mask
from sqlalchemy import func, select, update

from app.datasets import removal
from app.db.columns import now
from app.db.models import Annotation, Dataset, Job, Model
from app.db.session import Database
from app.errors import Conflict
from app.masks import versions
from app.settings import Settings
from app.storage.store import Storage
from sapnet.config.resolve import resolve_config
from worker.jobs.execute import execute
from worker.jobs.train import prepare
from worker.runtime.types import WorkerContext

from .answers import problem
from .conftest import context_of

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]


def decide(client: TestClient, mask_id: str, **decision: Any) -> Any:
    answer = client.patch(f"/masks/{mask_id}", json=decision, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rle(rows: slice, columns: slice) -> dict[str, Any]:
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[rows, columns] = 1
    return {"size": [30, 40], "counts": coco_mask.encode(mask)["counts"].decode()}


def annotations(client: TestClient, dataset: str) -> dict[int, Any]:
    found = client.get(f"/datasets/{dataset}/annotations").json()["annotations"]
    return {a["id"]: a for a in found}


MINE = rle(slice(3, 7), slice(10, 15))


@pytest.mark.slow
def test_a_new_version(client: TestClient, done: str, dataset_id: str) -> None:
    problem(client.post(f"/jobs/{done}/corrections", json={}), 409)
    decide(client, f"{done}.900", decision="accept")
    decide(client, f"{done}.900", decision="reopen")
    problem(client.post(f"/jobs/{done}/corrections"), 409)
    decide(client, f"{done}.501", decision="correct", segmentation=MINE)
    decide(client, f"{done}.502", decision="reject")
    accepted = decide(client, f"{done}.900", decision="accept")["segmentation"]
    answer = client.post(f"/jobs/{done}/corrections")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/datasets/{made['id']}"
    assert (made["name"], made["parent_id"]) == ("cells, version 2", dataset_id)
    assert (made["images"], made["annotations"]) == (2, 2)
    assert [c["annotations"] for c in made["categories"]] == [2, 0]
    wanted = {"job_id": done, "open": 0, "accepted": 1, "corrected": 1, "rejected": 1}
    assert made["report"]["corrections"] == wanted
    images = client.get(f"/datasets/{made['id']}/images").json()["images"]
    assert [(i["id"], i["annotations"]) for i in images] == [(12, 1), (99, 1)]
    before = client.get(f"/datasets/{dataset_id}/images").json()["images"]
    assert [i["sha256"] for i in images] == [i["sha256"] for i in before]
    found = annotations(client, made["id"])
    assert set(found) == {501, 900}
    assert (found[501]["mask"], found[900]["mask"]) == (MINE, accepted)
    assert found[501]["point"] == [0.5, 20.5]
    assert [a["mask"] for a in annotations(client, dataset_id).values()] == [None] * 3
    named = client.post(f"/jobs/{done}/corrections", json={"name": "second"}).json()
    assert named["name"] == "second"
    problem(client.post(f"/jobs/{done}/corrections", json={"name": ""}), 422)
    problem(client.post("/jobs/none/corrections"), 404)


@pytest.mark.slow
def test_masks_are_kept_through_versions(
    client: TestClient, done: str, new_worker: NewWorker, database: Database
) -> None:
    decide(client, f"{done}.501", decision="correct", segmentation=MINE)
    decide(client, f"{done}.900", decision="accept")
    second = client.post(f"/jobs/{done}/corrections").json()
    assert second["annotations"] == 3
    job = client.post("/jobs/train", json={"dataset_id": second["id"]}).json()["id"]
    execute(job, new_worker())
    other = rle(slice(0, 3), slice(0, 3))
    decide(client, f"{job}.900", decision="correct", segmentation=other)
    decide(client, f"{job}.502", decision="reject")
    third = client.post(f"/jobs/{job}/corrections").json()
    assert third["name"] == "cells, version 3"
    found = annotations(client, third["id"])
    assert {i: a["mask"] for i, a in found.items()} == {501: MINE, 900: other}
    with database.begin() as session:  # a version outlives what it was made from
        session.execute(update(Job).values(state="succeeded"))
    first = client.get(f"/datasets/{second['id']}").json()["parent_id"]
    assert client.delete(f"/datasets/{first}?force=true").status_code == 204
    assert client.get(f"/datasets/{third['id']}/images/12").content == b"an image"


@pytest.mark.slow
def test_the_trainer_is_told(
    client: TestClient, done: str, database: Database, storage: Storage, settings: Settings
) -> None:
    decide(client, f"{done}.501", decision="correct", segmentation=MINE)
    with database.begin() as session:
        boxed = update(Annotation).where(Annotation.annotation_id.in_((502, 900)))
        session.execute(boxed.values(box=[8, 18, 13.5, 23], x=10.75))
        session.execute(boxed.values(pointed=False).where(Annotation.annotation_id == 900))
    made = client.post(f"/jobs/{done}/corrections").json()
    version, report = made["id"], made["report"]
    assert [report[name] for name in ("points", "boxes", "masks")] == [2, 2, 1]
    job = client.post("/jobs/train", json={"dataset_id": version}).json()["id"]
    path = prepare(context_of(WorkerContext(settings, database, storage), job))
    points = json.loads(Path(json.loads(path.read_text())["points"]).read_text())
    told = [tuple(map(a.get, ("mask", "point", "bbox"))) for a in points["annotations"]]
    box = [8, 18, 5.5, 5]
    assert told == [(MINE, [0.5, 20.5], None), (None, [10.75, 20.5], box), (None, None, box)]


@pytest.mark.slow
def test_sent_again_it_is_the_same_version(client: TestClient, done: str) -> None:
    decide(client, f"{done}.501", decision="accept")
    key = {"Idempotency-Key": "once"}
    answers = [client.post(f"/jobs/{done}/corrections", json={}, headers=key) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(client.get("/datasets").json()["datasets"]) == 2


@pytest.mark.slow
def test_not_everything_may_be_rejected(client: TestClient, done: str) -> None:
    for number in (501, 502, 900):
        decide(client, f"{done}.{number}", decision="reject")
    problem(client.post(f"/jobs/{done}/corrections"), 409)
    assert len(client.get("/datasets").json()["datasets"]) == 1


@pytest.mark.slow
def test_nobody_sees_a_part_of_it(
    client: TestClient,
    done: str,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    remove_deleted: Callable[[Settings], None],
) -> None:
    """It is written in batches; one that was cut off is removed, by a kill after an hour."""
    monkeypatch.setattr(versions, "BATCH", 1)
    decide(client, f"{done}.502", decision="reject")
    table, write, seen = Dataset.__table__.c, removal.finish, list[Any]()

    def rows() -> int:
        with database.read() as session:
            return session.scalar(select(func.count()).select_from(Annotation)) or 0

    def cut_off(session: Any, dataset_id: str, **values: Any) -> bool:
        listed = client.get("/datasets").json()["datasets"]
        seen.append((rows(), len(listed), client.get(f"/datasets/{dataset_id}").status_code))
        raise Conflict("cut off")

    monkeypatch.setattr(removal, "finish", cut_off)
    problem(client.post(f"/jobs/{done}/corrections"), 409)
    assert seen == [(5, 1, 404)]
    with database.read() as session:  # as a kill leaves it
        moment = session.scalar(select(table.deleted_at).where(table.deleted_at.is_not(None)))
    assert moment is not None
    later = {"deleted_at": now() + removal.UNFINISHED_FOR}
    with database.begin() as session:
        session.execute(update(Dataset.__table__).where(table.deleted_at == moment).values(later))
    remove_deleted(settings)
    assert rows() == 5
    with database.begin() as session:
        session.execute(
            update(Dataset.__table__).where(table.deleted_at > moment).values(deleted_at=moment)
        )
    remove_deleted(settings)
    assert rows() == 3
    monkeypatch.setattr(removal, "finish", write)
    assert client.post(f"/jobs/{done}/corrections").json()["annotations"] == 2


@pytest.mark.slow
def test_going_on_from_a_model(
    client: TestClient,
    done: str,
    dataset_id: str,
    database: Database,
    storage: Storage,
    settings: Settings,
) -> None:
    model = client.get(f"/jobs/{done}").json()["model_id"]
    body = {"dataset_id": dataset_id, "from_model": model, "preset": "demo"}
    answer = problem(client.post("/jobs/train", json=body), 422)
    assert answer["errors"][0]["pointer"] == "/from_model"  # the fake's description says nothing
    config = resolve_config("sapnet++", "cpu", body="mobilenet_v2").to_dict()
    with database.begin() as session:
        session.execute(update(Model).values(meta={"config": config}))
    job = client.post("/jobs/train", json=body).json()["id"]
    assert client.get(f"/jobs/{job}").json()["from_model"] == model
    assert client.get(f"/jobs/{done}").json()["from_model"] is None
    path = prepare(context_of(WorkerContext(settings, database, storage), job))
    initial = json.loads(path.read_text())["initial_model"]
    checkpoint = client.get(f"/models/{model}/checkpoint").content
    assert Path(initial).read_bytes() == checkpoint
    paper = problem(client.post("/jobs/train", json=body | {"preset": "paper_r50_1x"}), 422)
    (fault,) = paper["errors"]
    assert fault["pointer"] == "/from_model"
    assert "backbone.name is 'resnet50', the model's 'mobilenet_v2'" in fault["detail"]
    problem(client.post("/jobs/train", json=body | {"from_model": "none"}), 404)


@pytest.mark.slow
def test_before_and_after(
    client: TestClient, done: str, new_worker: NewWorker, new_job: NewJob, database: Database
) -> None:
    decide(client, f"{done}.501", decision="correct", segmentation=MINE)
    decide(client, f"{done}.502", decision="reject")
    version = client.post(f"/jobs/{done}/corrections").json()["id"]
    later = client.post("/jobs/train", json={"dataset_id": version}).json()["id"]
    problem(client.get(f"/jobs/{done}/compare/{later}"), 409)
    execute(later, new_worker())
    body = client.get(f"/jobs/{done}/compare/{later}").json()
    assert body["quality"] == {
        "before": {"masks": 3, "mean": round(1.25 / 3, 6)},
        "after": {"masks": 2, "mean": 0.625},  # 501's is confirmed
    }
    assert set(body["metrics"]) == {"before", "after"}
    assert [m["id"] for m in body["masks"]] == [501, 900]
    first, second = body["masks"]
    light = coco_mask.decode(MINE)
    delivered = client.get(f"/masks/{done}.501").json()["delivered"]
    both = coco_mask.decode(delivered)
    wanted = (light & both).sum() / (light | both).sum()
    assert first["iou"] == pytest.approx(wanted, abs=1e-5)
    assert (second["iou"], second["quality_before"], second["quality_after"]) == (1.0, 0.25, 0.25)
    assert first["quality_after"] == 1.0
    page = client.get(f"/jobs/{done}/compare/{later}", params={"limit": 1}).json()
    assert [m["id"] for m in page["masks"]] == [501]
    query = {"limit": 1, "cursor": page["next"]}
    page = client.get(f"/jobs/{done}/compare/{later}", params=query).json()
    assert ([m["id"] for m in page["masks"]], page["next"]) == ([900], None)
    with database.begin() as session:
        session.execute(update(Dataset).values(parent_id=None))
    problem(client.get(f"/jobs/{done}/compare/{later}"), 409)
    problem(client.get(f"/jobs/{done}/compare/none"), 404)
