"""A data set that corrects another one needs no images of its own."""

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.db.models import Dataset, Job
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks


@pytest.fixture
def parent(client: TestClient, kit: Any) -> str:
    return str(kit.upload(client, kit.points(images=3), kit.images(3)).json()["id"])


def images(client: TestClient, dataset: str) -> list[tuple[str, int, str]]:
    found = client.get(f"/datasets/{dataset}/images").json()["images"]
    return [(i["file_name"], i["width"], i["sha256"]) for i in found]


@pytest.mark.slow
def test_the_parents_images_are_used(client: TestClient, kit: Any, parent: str) -> None:
    document = kit.points(images=2, each=1)  # fewer of them, and other points
    document["images"][0].pop("width")
    document["images"][0].pop("height")
    answer = kit.upload(client, document, None, parent=parent)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["parent_id"], made["images"], made["annotations"]) == (parent, 2, 2)
    assert images(client, made["id"]) == images(client, parent)[:2]
    assert client.delete(f"/datasets/{parent}").status_code == 204
    assert client.get(f"/datasets/{made['id']}/images/1").content == kit.images()["1.png"]


@pytest.mark.slow
def test_a_name_that_the_parent_has_not(client: TestClient, kit: Any, parent: str) -> None:
    answer = kit.upload(client, kit.points(images=4), None, parent=parent)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["part"], error["pointer"]) == ("annotations", "/images/3/file_name")
    assert "there is no image '4.png'" in error["detail"]
    larger = kit.points(images=1)
    larger["images"][0]["width"] = 41
    error = kit.upload(client, larger, None, parent=parent).json()["errors"][0]
    assert "declared 41×30" in error["detail"]


@pytest.mark.slow
def test_by_a_worker(app: FastAPI, client: TestClient, kit: Any, parent: str) -> None:
    client.headers["prefer"] = "respond-async"
    dataset = kit.upload(client, kit.points(images=2), None, parent=parent).json()
    missing = kit.upload(client, kit.points(images=4), None, parent=parent).json()
    state = app.state
    with state.database.read() as session:
        jobs = list(session.scalars(select(Job.id).order_by(Job.id)))
    for job in jobs:
        assert (
            execute(job, WorkerContext(state.settings, state.database, state.storage))
            is Outcome.ENDED
        )
    assert client.get(f"/datasets/{dataset['id']}").json()["status"] == "ready"
    assert images(client, dataset["id"]) == images(client, parent)[:2]
    refused = client.get(f"/datasets/{missing['id']}").json()
    assert refused["status"] == "invalid"
    assert refused["report"]["errors"][0]["pointer"] == "/images/3/file_name"


@pytest.mark.slow
def test_which_parent(app: FastAPI, client: TestClient, kit: Any, parent: str) -> None:
    none = kit.upload(client, kit.points(), None, parent="none")
    assert [e["part"] for e in none.json()["errors"]] == ["parent"]
    assert kit.upload(client, kit.points(), None).status_code == 422
    with app.state.database.begin() as session:
        session.execute(update(Dataset).values(status="importing"))
    waiting = kit.upload(client, kit.points(), None, parent=parent).json()["errors"]
    assert [e["detail"] for e in waiting] == ["the data set is importing"]
    sent = kit.upload(client, kit.points(images=1), kit.images(1), parent=parent)
    assert sent.status_code == 422
