"""The review: the queue, decisions by compare-and-set, and what results say of them."""

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from pycocotools import mask as coco_mask
from sqlalchemy import select, update

from app.db.models import Image, Job, MaskDecision, PseudoMask
from app.db.session import Database
from app.storage.store import Storage

from .answers import problem

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]


def rle(rows: slice, columns: slice, size: tuple[int, int] = (30, 40)) -> dict[str, Any]:
    mask = np.zeros(size, np.uint8, order="F")
    mask[rows, columns] = 1
    found = coco_mask.encode(mask)
    return {"size": list(size), "counts": found["counts"].decode()}


def patch(client: TestClient, mask_id: str, tag: str | None, **decision: Any) -> Any:
    headers = {} if tag is None else {"If-Match": tag}
    return client.patch(f"/masks/{mask_id}", json=decision, headers=headers)


def decided(client: TestClient, mask_id: str, **decision: Any) -> Any:
    answer = patch(client, mask_id, client.get(f"/masks/{mask_id}").headers["etag"], **decision)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
def test_the_stored_stream_is_that_of_the_rows(
    client: TestClient, done: str, database: Database, storage: Storage
) -> None:
    """Before and after decisions; without the blob the lines are made from the rows."""
    url, headers = f"/jobs/{done}/pseudo-masks", {"Accept": "application/x-ndjson"}

    def streamed() -> list[dict[str, Any]]:
        stored = client.get(url, headers=headers).text
        made = client.get(url, headers=headers, params={"limit": 1000}).text
        assert stored == made
        return [json.loads(line) for line in stored.splitlines()]

    assert [mask["status"] for mask in streamed()] == ["open"] * 3
    segmentation = rle(slice(3, 9), slice(4, 20))
    decided(client, f"{done}.502", decision="correct", segmentation=segmentation)
    decided(client, f"{done}.900", decision="reject")
    masks = streamed()
    assert [(m["id"], m["status"]) for m in masks] == [
        (501, "open"),
        (502, "corrected"),
        (900, "rejected"),
    ]
    assert masks[1]["segmentation"] == segmentation
    with database.read() as session:
        sha = session.scalar(select(Job.masks_sha))
    assert sha
    storage.delete(sha)  # the rows have all of it too
    assert streamed() == masks


@pytest.mark.slow
def test_the_worst_comes_first(client: TestClient, done: str) -> None:
    url = f"/jobs/{done}/review"
    body = client.get(url).json()
    assert [m["id"] for m in body["masks"]] == [502, 900, 501]
    assert body["counts"] == {"open": 3, "accepted": 0, "corrected": 0, "rejected": 0}
    first = body["masks"][0]
    assert first["point"] == [39.5, 20.5]
    assert (first["status"], first["revision"]) == ("open", 0)
    assert [c["index"] for c in first["candidates"]] == [0, 1]
    assert first == client.get(f"/masks/{first['mask_id']}").json()
    assert first["selected"] == first["segmentation"]
    seen, cursor = [], {}
    for _ in range(3):
        page = client.get(url, params={"limit": 1, **cursor}).json()
        seen += [m["id"] for m in page["masks"]]
        cursor = {"cursor": page["next"]}
        # what is decided on the way moves nothing
        decided(client, page["masks"][0]["mask_id"], decision="reject")
    assert (seen, page["next"]) == ([502, 900, 501], None)


@pytest.mark.slow
def test_filters(client: TestClient, done: str) -> None:
    decided(client, f"{done}.900", decision="accept")
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"max_quality": 0.5}, [502, 900]),
        ({"category_id": 0}, [900, 501]),
        ({"image_id": 12}, [502, 501]),
        ({"image_id": 5}, []),
        ({"status": "open"}, [502, 501]),
        ({"status": "accepted"}, [900]),
        ({"status": "rejected"}, []),
    ]
    for query, ids in wanted:
        body = client.get(f"/jobs/{done}/review", params=query).json()
        assert [m["id"] for m in body["masks"]] == ids, query
        assert body["counts"] == {"open": 2, "accepted": 1, "corrected": 0, "rejected": 0}


@pytest.mark.slow
def test_every_decision(client: TestClient, done: str, database: Database) -> None:
    mask_id = f"{done}.501"
    before = client.get(f"/masks/{mask_id}").json()
    states = []
    for decision in ("accept", "reject", "reopen"):
        found = decided(client, mask_id, decision=decision)
        states.append(found["status"])
        assert found["segmentation"] == before["segmentation"]
    assert states == ["accepted", "rejected", "open"]

    chosen = decided(client, mask_id, decision="choose", candidate=1)
    assert chosen["segmentation"] == before["candidates"][1]["segmentation"]
    assert (chosen["status"], chosen["source"]) == ("corrected", "confirmed")
    assert chosen["delivered"] == before["segmentation"]

    mine = rle(slice(3, 7), slice(10, 15))
    corrected = decided(client, mask_id, decision="correct", segmentation=mine)
    assert (corrected["segmentation"], corrected["revision"]) == (mine, 5)
    assert (corrected["bbox"], corrected["area"]) == ([10.0, 3.0, 5.0, 4.0], 20.0)
    assert decided(client, mask_id, decision="accept")["segmentation"] == mine

    (listed,) = client.get(f"/jobs/{done}/pseudo-masks?status=corrected").json()["annotations"]
    assert (listed["id"], listed["segmentation"], listed["area"]) == (501, mine, 20.0)
    with database.read() as session:  # what the job delivered is as it was
        query = select(PseudoMask).where(PseudoMask.annotation_id == 501)
        assert session.scalars(query).one().segmentation == before["segmentation"]
        assert session.scalars(select(MaskDecision)).one().revision == 6
    assert decided(client, mask_id, decision="reopen")["segmentation"] == before["segmentation"]
    assert client.get(f"/jobs/{done}/review").json()["counts"]["open"] == 3


@pytest.mark.slow
def test_a_mask_comes_back_as_pycocotools_writes_it(client: TestClient, done: str) -> None:
    """Runs of no pixels say nothing: "0P1" is none, then 32 of background again."""
    plain = rle(slice(3, 7), slice(10, 15))
    runs = [0, 0, *coco_mask_runs(plain)]
    odd = coco_mask.frPyObjects({"size": [30, 40], "counts": runs}, 30, 40)["counts"].decode()
    assert odd != plain["counts"]
    sent = {"size": [30, 40], "counts": odd}
    assert (
        decided(client, f"{done}.501", decision="correct", segmentation=sent)["segmentation"]
        == plain
    )


def coco_mask_runs(mask: dict[str, Any]) -> list[int]:
    flat = coco_mask.decode(mask).flatten(order="F").tolist()
    runs, value = [0], 0
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.slow
def test_if_match(client: TestClient, done: str) -> None:
    mask_id = f"{done}.501"
    tag = client.get(f"/masks/{mask_id}").headers["etag"]
    assert tag == '"0"'
    without = patch(client, mask_id, None, decision="accept")
    assert problem(without, 428)["type"] == "/problems/precondition-required"
    assert without.headers["etag"] == tag
    for wrong in ('"1"', 'W/"0"', "0", ""):
        assert problem(patch(client, mask_id, wrong, decision="accept"), 412)["revision"] == 0
    answer = patch(client, mask_id, '"7", "0"', decision="accept")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    stale = patch(client, mask_id, tag, decision="reject")
    assert (stale.headers["etag"], problem(stale, 412)["revision"]) == ('"1"', 1)
    assert patch(client, mask_id, "*", decision="reject").headers["etag"] == '"2"'
    assert client.get(f"/masks/{mask_id}").json()["status"] == "rejected"


@pytest.mark.slow
@pytest.mark.parametrize("first", [None, "accept"])
def test_of_two_at_once_one_wins(client: TestClient, done: str, first: str | None) -> None:
    mask_id = f"{done}.501"
    if first:
        decided(client, mask_id, decision=first)
    tag = client.get(f"/masks/{mask_id}").headers["etag"]
    barrier, answers = threading.Barrier(4), []

    def go(decision: str) -> None:
        barrier.wait()
        answers.append(patch(client, mask_id, tag, decision=decision))

    threads = [threading.Thread(target=go, args=(d,)) for d in ("accept", "reject") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.status_code for a in answers) == [200, 412, 412, 412]
    (won,) = (a.json() for a in answers if a.status_code == 200)
    assert client.get(f"/masks/{mask_id}").json() == won


NO_DECISIONS: list[tuple[dict[str, Any], str | None]] = [
    ({"decision": "choose", "candidate": 2}, "/candidate"),
    ({"decision": "choose", "candidate": -1}, "/candidate"),
    ({"decision": "choose"}, "/candidate"),
    ({"decision": "perhaps"}, ""),
    ({}, ""),
    ({"decision": "accept", "candidate": 1}, "/candidate"),
    ({"decision": "correct", "segmentation": None}, "/segmentation"),
    ({"decision": "correct", "segmentation": {"size": [30, 40]}}, "/segmentation/counts"),
    ({"decision": "correct", "segmentation": {"size": [30], "counts": ""}}, None),
    ({"decision": "correct", "segmentation": {"size": [40, 30], "counts": "PV1"}}, None),
    ({"decision": "correct", "segmentation": {"size": [30, 40], "counts": "é"}}, None),
    ({"decision": "correct", "segmentation": {"size": [30, 40], "counts": "PP"}}, None),
    ({"decision": "correct", "segmentation": {"size": [30, 40], "counts": "5"}}, None),
    ({"decision": "correct", "segmentation": rle(slice(0), slice(0))}, "/segmentation"),
]


@pytest.mark.slow
def test_what_is_no_decision(client: TestClient, done: str) -> None:
    for decision, pointer in NO_DECISIONS:
        body = problem(patch(client, f"{done}.501", '"0"', **decision), 422)
        at = body["errors"][0]["pointer"]
        assert at == pointer or (pointer is None and "/segmentation" in at), (decision, body)
    assert client.get(f"/masks/{done}.501").json()["revision"] == 0


@pytest.mark.slow
def test_there_is_no_such_mask(client: TestClient, done: str) -> None:
    assert problem(client.get("/masks/501"), 404)
    for number in ("", "5", "x", "501.", "-", "9" * 30, "٥٠١"):
        assert problem(client.get(f"/masks/{done}.{number}"), 404)
        assert problem(patch(client, f"{done}.{number}", '"0"', decision="accept"), 404)


@pytest.mark.slow
def test_a_job_without_results(client: TestClient, new_job: NewJob) -> None:
    job_id = new_job()
    assert problem(client.get(f"/jobs/{job_id}/review"), 409)["state"] == "queued"
    assert problem(client.get(f"/masks/{job_id}.501"), 409)
    assert problem(patch(client, f"{job_id}.501", '"0"', decision="accept"), 409)


@pytest.fixture
def photo(database: Database, storage: Storage) -> np.ndarray:
    """A real image in place of the data set's images: a light square on dark ground."""
    pixels = np.full((30, 40, 3), 40, np.uint8)
    pixels[15:27, 0:9] = 200
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    sha = storage.put_bytes(buffer.getvalue())
    with database.begin() as session:
        session.execute(update(Image).values(sha256=sha))
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompter", "edges"])
def test_a_click_corrects_a_mask(
    client: TestClient, done: str, photo: np.ndarray, method: str
) -> None:
    state = client.app.state  # type: ignore[attr-defined]
    state.settings = state.settings.model_copy(update={"click_method": method})
    url = f"/masks/{done}.501"
    before = client.get(url).json()
    clicks = {"points": [{"x": 6.5, "y": 20.5}]}
    found = client.post(f"{url}/suggest", json=clicks)
    assert found.status_code == 200, found.text
    mask = coco_mask.decode(found.json()["segmentation"]).astype(bool)
    light = photo[..., 0] > 100
    assert mask[20, 6]
    assert mask[20, 0]
    assert not (mask & ~light)[:, 3:].any()
    assert found.json()["area"] == mask.sum()
    assert found.json()["bbox"] == coco_mask.toBbox(found.json()["segmentation"]).tolist()
    assert client.get(url).json() == before  # nothing is kept
    more = {"points": [*clicks["points"], {"x": 7.5, "y": 25.5, "positive": False}]}
    again = client.post(
        f"{url}/suggest", json=more | {"segmentation": found.json()["segmentation"]}
    ).json()
    smaller = coco_mask.decode(again["segmentation"])
    assert (smaller[20, 6], smaller[20, 0], smaller[25, 7]) == (1, 1, 0)
    whole = {"segmentation": rle(slice(0), slice(0))}
    anew = client.post(f"{url}/suggest", json=clicks | whole).json()
    assert coco_mask.decode(anew["segmentation"])[20, 6]
    assert decided(client, f"{done}.501", decision="correct", segmentation=anew["segmentation"])


@pytest.mark.slow
def test_what_is_no_click(client: TestClient, done: str, photo: np.ndarray) -> None:
    url = f"/masks/{done}.501/suggest"
    bad: list[tuple[dict[str, Any], str]] = [
        ({"points": []}, "/points"),
        ({"points": [{"x": 40.0, "y": 3.0}]}, "/points/0"),
        ({"points": [{"x": 1, "y": 1}, {"x": 1.2, "y": 1.2, "positive": False}]}, "/points"),
        ({"points": [{"x": -1, "y": 3.0}]}, "/points/0/x"),
        ({"points": [{"x": 1, "y": 1}], "segmentation": rle(slice(2), slice(2), (40, 30))}, ""),
    ]
    for body, pointer in bad:
        answer = problem(client.post(url, json=body), 422)
        assert answer["errors"][0]["pointer"].startswith(pointer), answer
    assert problem(client.post(f"/masks/{done}.5/suggest", json=bad[1][0]), 404)
