"""What a job leaves, over HTTP, with the fake trainer behind it: masks, model, report, logs."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from app.db.columns import now
from app.db.models import Job, JobState, PseudoMask
from app.db.session import Database
from app.settings import Settings

from .answers import pointers, problem

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["metrics", "report", "report.html", "checkpoint", "gallery", "pseudo-masks", "logs"]
)
def test_results_of_a_job_that_has_none(client: TestClient, new_job: NewJob, what: str) -> None:
    job_id = new_job(state=JobState.FAILED, reason="non_finite_loss")
    answer = client.get(f"/jobs/{job_id}/{what}")
    if what == "logs":
        assert (answer.status_code, answer.text) == (200, "")
    else:
        body = problem(answer, 409)
        assert (body["state"], body["reason"]) == ("failed", "non_finite_loss")
    problem(client.get(f"/jobs/none/{what}"), 404)


@pytest.mark.slow
def test_pseudo_masks(client: TestClient, done: str) -> None:
    url = f"/jobs/{done}/pseudo-masks"
    body = client.get(url).json()
    assert body["next"] is None
    first = body["annotations"][0]
    assert set(first) == {
        *("id", "image_id", "category_id", "segmentation", "bbox", "area", "quality", "source"),
        *("mask_id", "status", "revision"),
    }
    assert (first["id"], first["image_id"], first["category_id"]) == (501, 12, 0)
    assert first["segmentation"]["size"] == [30, 40]
    assert first["bbox"] == [0, 18, 3, 5]

    def ids(**query: Any) -> list[int]:
        return [a["id"] for a in client.get(url, params=query).json()["annotations"]]

    assert ids() == [501, 502, 900]
    assert ids(image_id=12) == [501, 502]
    assert ids(category_id=7) == [502]
    assert ids(min_quality=0.5) == [501]
    assert ids(min_quality=0.5, category_id=7) == []
    assert ids(image_id=1) == []
    detail = client.get(url, params={"detail": True}).json()["annotations"][0]
    assert detail["selected"]["size"] == [30, 40]
    assert detail["refined"] is None
    assert detail["proposal_source"] == "hierarchy"
    assert detail["doubts"] == {"support": 0.5, "predicted": None}
    assert pointers(client.get(url, params={"min_quality": 2})) == ["/min_quality"]
    assert pointers(client.get(url, params={"image_id": 10**30})) == ["/image_id"]


@pytest.mark.slow
def test_pseudo_masks_by_cursor(client: TestClient, done: str) -> None:
    seen, url = [], f"/jobs/{done}/pseudo-masks?limit=2&min_quality=0.1"
    while url:
        answer = client.get(url)
        seen.append([a["id"] for a in answer.json()["annotations"]])
        url = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == [[501, 502], [900]]


@pytest.mark.slow
def test_pseudo_masks_as_lines(client: TestClient, done: str, database: Database) -> None:
    row = {
        "job_id": done,
        "image_id": 12,
        "category_id": 0,
        "segmentation": {"size": [30, 40], "counts": "0"},
        **dict.fromkeys(("x", "y", "w", "h", "area"), 0.0),
        "quality": 1.0,
        "source": "refined",
    }
    with database.begin() as session:
        session.execute(insert(PseudoMask), [{**row, "annotation_id": i} for i in range(-4500, 0)])
        session.execute(update(Job).values(masks_sha=None))  # as of a job of an older release
    headers = {"Accept": "application/x-ndjson"}
    answer = client.get(f"/jobs/{done}/pseudo-masks", headers=headers)
    assert answer.headers["content-type"] == "application/x-ndjson"
    ids = [json.loads(line)["id"] for line in answer.text.splitlines()]
    assert ids == [*range(-4500, 0), 501, 502, 900]
    some = client.get(f"/jobs/{done}/pseudo-masks?limit=2001", headers=headers)
    assert len(some.text.splitlines()) == 2001
    none = client.get(f"/jobs/{done}/pseudo-masks?image_id=5", headers=headers)
    assert (none.status_code, none.text) == (200, "")
    problem(client.get(f"/jobs/{done}/pseudo-masks", headers={"Accept": "text/csv"}), 406)
    both = {"Accept": "application/x-ndjson;q=0.5, application/json"}
    assert "annotations" in client.get(f"/jobs/{done}/pseudo-masks", headers=both).json()


@pytest.mark.slow
def test_checkpoint_downloads(client: TestClient, done: str) -> None:
    url = f"/jobs/{done}/checkpoint"
    whole = client.get(url)
    assert whole.content == b"weights of seed 3" * 1000
    assert f'filename="model-{done}.pt"' in whole.headers["content-disposition"]
    etag = whole.headers["etag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    part = client.get(url, headers={"Range": "bytes=8-14"})
    assert (part.status_code, part.content) == (206, b"of seed")
    assert part.headers["content-range"] == "bytes 8-14/17000"
    beyond = client.get(url, headers={"Range": "bytes=99999-"})
    problem(beyond, 416)
    assert beyond.headers["content-range"] == "bytes */17000"
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "17000"
    model = client.get(f"/jobs/{done}").json()["model_id"]
    again = client.get(f"/models/{model}/checkpoint")
    assert (again.content, again.headers["etag"]) == (whole.content, etag)
    problem(client.get("/models/none/checkpoint"), 404)


@pytest.mark.slow
def test_report_for_people(client: TestClient, done: str, new_job: NewJob) -> None:
    page = client.get(f"/jobs/{done}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>fake</title>" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    again = {"If-None-Match": page.headers["etag"]}
    assert client.get(f"/jobs/{done}/report.html", headers=again).status_code == 304
    older = new_job(state=JobState.SUCCEEDED)  # of before there were any
    problem(client.get(f"/jobs/{older}/report.html"), 404)


@pytest.mark.slow
def test_gallery_and_logs(client: TestClient, done: str) -> None:
    gallery = client.get(f"/jobs/{done}/gallery")
    assert gallery.headers["content-type"] == "image/png"
    assert gallery.content.startswith(b"\x89PNG")
    url = f"/jobs/{done}/logs"
    log = client.get(url)
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text.splitlines() == [
        "a log line of the trainer",
        "this line is not of the protocol",
    ]
    assert client.get(url, params={"tail": 1}).text == "this line is not of the protocol\n"
    assert client.get(url, headers={"Range": "bytes=0-4"}).text == "a log"
    assert pointers(client.get(url, params={"tail": 0})) == ["/tail"]


@pytest.mark.slow
def test_the_log_of_a_job_that_runs(
    client: TestClient, new_job: NewJob, settings: Settings
) -> None:
    lease = now() + timedelta(seconds=60)
    job_id = new_job(state=JobState.RUNNING, owner="w", attempt=1, lease_until=lease)
    (settings.folder("jobs", job_id) / "log.txt").write_text("one\ntwo\n")
    assert client.get(f"/jobs/{job_id}/logs").text == "one\ntwo\n"
    assert client.get(f"/jobs/{job_id}/logs?tail=1").text == "two\n"
