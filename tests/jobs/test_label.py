"""A model's masks for images without points: made by a worker, reviewed, taken into a version."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pycocotools import mask as coco_mask
from sqlalchemy import select, update

from app.db.models import AcceptanceRule, Annotation, Category, Dataset, Image, MaskDecision
from app.db.session import Database
from app.masks import acceptance
from sapnet.data.masks import encode
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = [pytest.mark.both_stacks, pytest.mark.slow]

NewWorker = Callable[..., WorkerContext]
_CORNER = np.zeros((30, 40), bool)
_CORNER[2:9, 30:38] = True
MINE = encode(_CORNER)


@pytest.fixture
def more_images(database: Database, dataset_id: str, model_id: str) -> list[int]:
    """Two images without points beside those of the data set."""
    with database.begin() as session:
        sha = session.scalars(select(Image.sha256)).first()
        for id_ in (100, 101):
            session.add(
                Image(
                    dataset_id=dataset_id,
                    image_id=id_,
                    file_name=f"{id_}.png",
                    width=40,
                    height=30,
                    annotations=0,
                    sha256=sha,
                )
            )
        session.execute(update(Dataset).values(images=4))
    return [100, 101]


@pytest.fixture
def labelled(
    client: TestClient, model_id: str, more_images: list[int], new_worker: NewWorker
) -> str:
    return label(client, new_worker, model=model_id)


def label(client: TestClient, new_worker: NewWorker, **body: Any) -> str:
    answer = client.post("/jobs/label", json=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    assert job["state"].startswith("succeeded"), job
    return job_id


def refused(answer: Any, status: int) -> dict[str, Any]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


def queue(client: TestClient, job: str, **params: Any) -> list[dict[str, Any]]:
    masks: list[dict[str, Any]] = client.get(f"/jobs/{job}/review", params=params).json()["masks"]
    return masks


def decide(client: TestClient, mask: dict[str, Any], **decision: Any) -> Any:
    headers = {"If-Match": f'"{mask["revision"]}"'}
    return client.patch(f"/masks/{mask['mask_id']}", json=decision, headers=headers)


def annotations(client: TestClient, dataset: str) -> dict[int, dict[str, Any]]:
    found = client.get(f"/datasets/{dataset}/annotations").json()["annotations"]
    return {a["id"]: a for a in found}


def test_images_without_points_get_masks_that_are_reviewed(
    client: TestClient, labelled: str, model_id: str, dataset_id: str
) -> None:
    job = client.get(f"/jobs/{labelled}").json()
    assert (job["kind"], job["model_id"], job["progress"]) == ("label", model_id, 1.0)
    assert (job["dataset_id"], job["state"]) == (dataset_id, "succeeded")
    masks = queue(client, labelled)
    assert [m["quality"] for m in masks] == [0.4, 0.4, 0.9, 0.9, 0.95, 0.95]
    assert {m["image_id"] for m in masks} == {100, 101}
    assert sorted(m["id"] for m in masks) == list(range(901, 907))  # above those of the data set
    first = masks[0]
    assert (first["source"], first["status"], first["point"]) == ("predicted", "open", [20.5, 20.5])
    assert first["score"] == pytest.approx(0.3)
    lines = client.get(f"/jobs/{labelled}/pseudo-masks", headers={"accept": "application/x-ndjson"})
    assert len(lines.text.splitlines()) == 6
    report = client.get(f"/jobs/{labelled}/report").json()
    assert (report["images"], report["masks"], report["set_aside"]) == (2, 6, [])
    refused(client.get(f"/jobs/{labelled}/compare/{labelled}"), 409)
    refused(client.get(f"/jobs/{labelled}/checkpoint"), 409)
    assert client.post(f"/jobs/{labelled}/exports", json={"format": "coco"}).status_code == 202


def test_what_was_decided_becomes_a_version(
    client: TestClient, labelled: str, dataset_id: str
) -> None:
    low, other, *rest = queue(client, labelled)
    refused(client.post(f"/jobs/{labelled}/corrections"), 409)
    moved = decide(client, low, decision="correct", segmentation=MINE).json()
    assert (moved["status"], moved["source"]) == ("corrected", "confirmed")
    assert decide(client, other, decision="reject").status_code == 200
    dust = next(m for m in rest if m["category_id"] == 7)
    now = decide(client, dust, decision="accept", category_id=0).json()
    assert (now["category_id"], now["delivered_category_id"], now["status"]) == (0, 7, "accepted")
    assert [m["id"] for m in queue(client, labelled, category_id=7)] == [
        m["id"] for m in rest if m["category_id"] == 7 and m["id"] != dust["id"]
    ]
    made = client.post(f"/jobs/{labelled}/corrections").json()
    assert (made["parent_id"], made["images"], made["annotations"]) == (dataset_id, 4, 5)
    told = made["report"]["corrections"]
    assert (told["open"], told["accepted"], told["corrected"], told["rejected"]) == (3, 1, 1, 1)
    told = made["report"]["review"]
    assert (told["added"], told["reclassified"], told["jobs"]) == (2, 1, [labelled])
    assert told["images_with_open_masks"] == 1
    found = annotations(client, made["id"])
    assert set(found) == {501, 502, 900, low["id"], dust["id"]}
    mine, accepted = found[low["id"]], found[dust["id"]]
    assert mine["mask"] == MINE
    x, y = mine["point"]  # the one that it came with is outside of the correction
    assert coco_mask.decode(MINE)[int(y), int(x)]
    assert (accepted["mask"], accepted["point"]) == (dust["segmentation"], [3.5, 3.5])
    assert (accepted["category_id"], accepted["pointed"]) == (0, True)
    assert found[501]["mask"] is None
    counted = {c["id"]: c["annotations"] for c in made["categories"]}
    assert counted == {0: 4, 7: 1}
    images = client.get(f"/datasets/{made['id']}/images").json()["images"]
    assert {i["id"]: i["annotations"] for i in images} == {12: 2, 99: 1, 100: 2, 101: 0}


def test_as_points(client: TestClient, labelled: str) -> None:
    low, _, *_, best = queue(client, labelled)
    decide(client, low, decision="correct", segmentation=MINE)
    decide(client, best, decision="accept")
    made = client.post(f"/jobs/{labelled}/corrections", json={"accepted_as": "points"}).json()
    found = annotations(client, made["id"])
    assert (found[best["id"]]["mask"], found[low["id"]]["mask"]) == (None, MINE)
    assert found[best["id"]]["point"] == [30.5, 10.5]
    assert (made["report"]["points"], made["report"]["masks"]) == (5, 1)


def test_a_rule_accepts_and_says_who_made_it(
    client: TestClient, labelled: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "BATCH", 1)
    masks = queue(client, labelled)
    kept, reopened = masks[-1], masks[-2]
    decide(client, kept, decision="reject")
    reopened = decide(client, reopened, decision="accept").json()
    decide(client, reopened, decision="reopen")
    key = {"Idempotency-Key": "once"}
    body = {"min_quality": 0.9}
    answers = [
        client.post(f"/jobs/{labelled}/review/accept", json=body, headers=key) for _ in range(2)
    ]
    assert [a.status_code for a in answers] == [201, 201]
    rule = answers[0].json()
    assert rule == answers[1].json()
    assert (rule["accepted"], rule["min_quality"], rule["made_by"]) == (3, 0.9, None)
    assert client.get(answers[0].headers["location"]).json() == rule
    assert client.get(f"/jobs/{labelled}/review/rules").json() == {"rules": [rule]}
    accepted = queue(client, labelled, status="accepted")
    assert {m["id"] for m in accepted} == {m["id"] for m in masks if m["quality"] >= 0.9} - {
        kept["id"]
    }
    assert {m["rule_id"] for m in accepted} == {rule["id"]}
    assert client.get(f"/masks/{kept['mask_id']}").json()["status"] == "rejected"
    made = client.post(f"/jobs/{labelled}/corrections").json()
    (told,) = made["report"]["review"]["rules"]
    assert (told["min_quality"], told["accepted"], told["job_id"]) == (0.9, 3, labelled)
    assert told["made_at"] is not None
    looked_at = decide(client, accepted[0], decision="accept").json()
    assert "rule_id" not in looked_at
    assert client.delete(answers[0].headers["location"]).status_code == 204
    refused(client.get(answers[0].headers["location"]), 404)
    counts = client.get(f"/jobs/{labelled}/review").json()["counts"]
    assert counts == {"open": 4, "accepted": 1, "corrected": 0, "rejected": 1}
    with database.read() as session:
        assert session.scalars(select(AcceptanceRule)).all() == []
        assert set(session.scalars(select(MaskDecision.rule_id))) == {None}


def test_a_rule_for_one_class_of_one_image(client: TestClient, labelled: str) -> None:
    body = {"min_quality": 0, "category_id": 0, "image_id": 101}
    rule = client.post(f"/jobs/{labelled}/review/accept", json=body).json()
    accepted = queue(client, labelled, status="accepted")
    assert rule["accepted"] == 2
    assert {(m["category_id"], m["image_id"]) for m in accepted} == {(0, 101)}
    for wrong in ({}, {"min_quality": 1.1}, {"min_quality": "a"}, {"min_quality": 0.5, "x": 1}):
        refused(client.post(f"/jobs/{labelled}/review/accept", json=wrong), 422)
    refused(client.post("/jobs/none/review/accept", json={"min_quality": 0.5}), 404)


def test_reviews_of_a_training_and_of_labelled_images_together(
    client: TestClient, labelled: str, done: str, model_id: str, new_worker: NewWorker
) -> None:
    again = label(client, new_worker, model=model_id, images=[100])  # the same ids once more
    for job, quality in ((labelled, 0.95), (again, 0.95)):
        client.post(f"/jobs/{job}/review/accept", json={"min_quality": quality})
    mask = client.get(f"/masks/{done}.502").json()
    decide(client, mask, decision="reject")
    body = {"also": [labelled, again]}
    made = client.post(f"/jobs/{done}/corrections", json=body).json()
    found = annotations(client, made["id"])
    assert made["annotations"] == len(found) == 5  # 501, 900, two and one
    assert len(made["report"]["review"]["rules"]) == 2
    assert made["report"]["review"]["jobs"] == [done, labelled, again]
    twice = {"also": [done, labelled]}
    assert client.post(f"/jobs/{done}/corrections", json=twice).status_code == 201


def test_named_images_and_classes_by_name(
    client: TestClient,
    model_id: str,
    more_images: list[int],
    new_worker: NewWorker,
    database: Database,
) -> None:
    with database.begin() as session:  # the data set is another one, with the class called so
        session.execute(update(Category).where(Category.category_id == 7).values(category_id=8))
        session.execute(update(Annotation).where(Annotation.category_id == 7).values(category_id=8))
    job = label(client, new_worker, model=model_id, images=[101, 12])
    masks = queue(client, job)
    assert {m["image_id"] for m in masks} == {12, 101}
    assert {m["category_id"] for m in masks} == {0, 8}
    with database.begin() as session:
        renamed = update(Category).where(Category.category_id == 8)
        session.execute(renamed.values(category_id=9, name="fluff"))
    job = label(client, new_worker, model=model_id, images=[101])
    assert {m["category_id"] for m in queue(client, job)} == {0}
    assert "dust" in client.get(f"/jobs/{job}").json()["warnings"][0]
    with database.begin() as session:
        session.execute(update(Category).values(name=Category.name + " of another kind"))
        session.execute(update(Category).values(category_id=Category.category_id + 100))
    answer = refused(client.post("/jobs/label", json={"model": model_id}), 422)
    assert [e["pointer"] for e in answer["errors"]] == ["/model"]


def test_what_cannot_be_labelled(
    client: TestClient, model_id: str, dataset_id: str, database: Database
) -> None:
    answer = refused(client.post("/jobs/label", json={"model": model_id}), 422)
    assert [e["pointer"] for e in answer["errors"]] == ["/images"]  # all have points
    body = {"model": model_id, "images": [12, 5]}
    answer = refused(client.post("/jobs/label", json=body), 422)
    assert [e["pointer"] for e in answer["errors"]] == ["/images/1"]
    refused(client.post("/jobs/label", json={"model": "none"}), 404)
    refused(client.post("/jobs/label", json={"model": model_id, "dataset_id": "none"}), 404)
    refused(client.post("/jobs/label", json={"model": model_id, "images": []}), 422)
    with database.begin() as session:
        session.execute(update(Dataset).values(status="importing"))
    refused(client.post("/jobs/label", json={"model": model_id}), 409)


def test_an_image_that_is_lost_and_a_class_that_is_none(
    client: TestClient, labelled: str, model_id: str, new_worker: NewWorker, database: Database
) -> None:
    (mask, *_) = queue(client, labelled)
    answer = refused(decide(client, mask, decision="accept", category_id=5), 422)
    assert answer["errors"][0]["pointer"] == "/category_id"
    refused(decide(client, mask, decision="reject", category_id=0), 422)
    with database.begin() as session:
        session.execute(update(Image).where(Image.image_id == 100).values(sha256="0" * 64))
    job = label(client, new_worker, model=model_id)
    assert len(queue(client, job)) == 3
    report = client.get(f"/jobs/{job}/report").json()
    assert [(s["image_id"], s["file_name"]) for s in report["set_aside"]] == [(100, "100.png")]


def test_broken_off_it_goes_on(
    client: TestClient, model_id: str, more_images: list[int], new_worker: NewWorker
) -> None:
    job = client.post("/jobs/label", json={"model": model_id}).json()["id"]
    assert execute(job, new_worker("--crash-at", "1")) is not Outcome.ENDED
    refused(client.get(f"/jobs/{job}/review"), 409)
    execute(job, new_worker())
    assert len(queue(client, job)) == 6
