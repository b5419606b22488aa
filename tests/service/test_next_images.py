"""Which image of a data set to look at next."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.db.columns import now
from app.db.models import Job, JobKind, JobState, MaskDecision, MaskStatus, PseudoMask
from worker.background.describer import Describer

pytestmark = [pytest.mark.both_stacks, pytest.mark.slow]


@pytest.fixture
def dataset(client: TestClient, kit: Any) -> str:
    """Six images; the first has two points, the others none."""
    document = kit.points(images=6, each=0)
    document["annotations"] = [
        {"id": 10 + n, "image_id": 1, "category_id": 0, "point": [5 + n, 5]} for n in range(2)
    ]
    answer = kit.upload(client, document, kit.images(6))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def add_job(
    app: FastAPI,
    dataset: str,
    masks: list[tuple[int, float, float]],
    kind: JobKind = JobKind.LABEL,
    decided: tuple[int, ...] = (),
    signals: dict[int, dict[str, Any]] | None = None,
) -> str:
    """A job with masks (image, quality, x of the box); those of `decided` images are accepted."""
    with app.state.database.begin() as session:
        job = Job(
            dataset_id=dataset,
            kind=kind,
            method="sapnet",
            preset="cpu",
            seed=0,
            request={"images": None},
            state=JobState.SUCCEEDED,
        )
        session.add(job)
        session.flush()
        first = 10 if kind is JobKind.TRAIN else 100
        for id_, (image, quality, x) in enumerate(masks, first):
            box = {"x": x, "y": 2.0, "w": 10.0, "h": 10.0, "area": 100.0}
            session.add(
                PseudoMask(
                    job_id=job.id,
                    annotation_id=id_,
                    image_id=image,
                    category_id=0,
                    segmentation={},
                    quality=quality,
                    source="predicted",
                    extra={"doubts": (signals or {}).get(id_)},
                    **box,
                )
            )
            if image in decided:
                decision = MaskDecision(
                    job_id=job.id,
                    annotation_id=id_,
                    status=MaskStatus.ACCEPTED,
                    revision=1,
                    decided_at=now(),
                )
                session.add(decision)
        return str(job.id)


def ask(client: TestClient, dataset: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/datasets/{dataset}/next", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def order(page: dict[str, Any]) -> list[int]:
    return [image["image_id"] for image in page["images"]]


def reasons(page: dict[str, Any], name: str) -> dict[int, float | None]:
    return {image["image_id"]: image["reasons"][name] for image in page["images"]}


def test_without_a_model_images_go_by_how_they_look(
    app: FastAPI, client: TestClient, dataset: str
) -> None:
    page = ask(client, dataset)
    assert (page["total"], page["done"], page["job_id"], page["complete"]) == (5, 1, None, False)
    assert order(page) == [2, 3, 4, 5, 6]
    assert set(reasons(page, "novelty").values()) == {None}
    while Describer(app.state.database, app.state.storage, app.state.settings).run_once():
        pass
    page = ask(client, dataset)
    assert page["complete"]
    assert sorted(order(page)) == [2, 3, 4, 5, 6]
    assert all(value is not None for value in reasons(page, "novelty").values())
    assert set(reasons(page, "uncertainty").values()) == {None}
    first = page["images"][0]
    weighted = {n: first["reasons"][n] or 0 for n in page["weights"]}
    score = sum(page["weights"][n] * value for n, value in weighted.items())
    assert first["score"] == pytest.approx(score, abs=1e-3)


def test_images_of_which_the_masks_are_unsure_come_first(
    app: FastAPI, client: TestClient, dataset: str
) -> None:
    # 2: sure; 3: unsure; 4: sure, overlapping; 5: one of two objects is missed; 6: nothing at all
    masks = [(2, 1.0, 2), (2, 1.0, 20), (3, 0.5, 2), (3, 0.3, 20), (4, 1.0, 2), (4, 1.0, 3)]
    job = add_job(app, dataset, [*masks, (5, 1.0, 2)])
    page = ask(client, dataset)
    assert page["job_id"] == job
    assert (order(page)[0], order(page)[-1]) == (6, 2)
    unsure = reasons(page, "uncertainty")
    assert unsure[2] == unsure[4] == 0
    assert unsure[6] == 1.0 > unsure[3] > unsure[5] > 0  # type: ignore[operator]
    apart = reasons(page, "disagreement")
    assert (apart[4], apart[2], apart[6]) == (1.0, 0, 0)
    assert {i["image_id"]: i["masks"] for i in page["images"]} == {2: 2, 3: 2, 4: 2, 5: 1, 6: 0}


def test_what_is_decided_is_done(app: FastAPI, client: TestClient, dataset: str) -> None:
    job = add_job(app, dataset, [(2, 0.4, 2), (3, 0.5, 2), (4, 0.6, 2)], decided=(3,))
    page = ask(client, dataset)
    assert (sorted(order(page)), page["done"]) == ([2, 4, 5, 6], 2)
    review = ask(client, dataset, job=job, images="open")
    assert (order(review), review["done"]) == ([2, 4], 2)


def test_a_training_tells_where_segmenter_and_proposals_disagree(
    app: FastAPI, client: TestClient, kit: Any
) -> None:
    answer = kit.upload(client, kit.points(images=3, each=1), kit.images(3))
    dataset = answer.json()["id"]
    signals = {
        10: {"seen": 0.9, "expected": 0.9},
        11: {"seen": 0.1, "expected": 0.3},
        12: {"seen": None, "expected": 0.9},
    }
    masks = [(1, 0.8, 2.0), (2, 0.8, 2.0), (3, 0.8, 2.0)]
    job = add_job(app, dataset, masks, JobKind.TRAIN, signals=signals)
    assert ask(client, dataset, job=job)["images"] == []  # all have points
    page = ask(client, dataset, images="open")
    assert page["job_id"] == job
    assert order(page) == [2, 1, 3]
    apart = reasons(page, "disagreement")
    assert apart[2] == 1.0 > apart[1] > apart[3] > 0  # type: ignore[operator]


def test_pages(app: FastAPI, client: TestClient, dataset: str) -> None:
    add_job(app, dataset, [(2, 0.5, 2), (3, 0.6, 2), (4, 0.7, 2), (5, 0.8, 2)])
    whole = order(ask(client, dataset))
    read, cursor = [], None
    while True:
        page = ask(client, dataset, limit=2, **({"cursor": cursor} if cursor else {}))
        read += order(page)
        if (cursor := page["next"]) is None:
            break
    assert read == whole
    assert ask(client, dataset, limit=5)["next"] is None


def test_a_version_is_ranked_by_its_parents_job(
    app: FastAPI, client: TestClient, dataset: str, kit: Any
) -> None:
    job = add_job(app, dataset, [(2, 0.9, 2), (3, 0.1, 2)])
    made = client.post(f"/datasets/{dataset}/versions", json={"remove_images": [6]}).json()["id"]
    page = ask(client, made)
    assert page["job_id"] == job
    assert 6 not in order(page)
    other = kit.upload(client, kit.points(), kit.images()).json()["id"]
    assert client.get(f"/datasets/{other}/next", params={"job": job}).status_code == 409


def test_what_is_refused(client: TestClient, dataset: str) -> None:
    path = f"/datasets/{dataset}/next"
    assert client.get("/datasets/none/next").status_code == 404
    assert client.get(path, params={"job": "none"}).status_code == 404
    assert client.get(path, params={"images": "all"}).status_code == 422
    assert client.get(path, params={"cursor": "x"}).status_code == 422
