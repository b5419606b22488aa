"""Idempotency-Key: sent again, a request makes nothing again and gets the same answer."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.auth import keys
from app.auth.keys import Scope
from app.db.columns import Base, now
from app.db.models import Dataset, IdempotencyRecord, Job
from app.http import idempotency
from app.http.idempotency import _Body
from app.main import create_app
from app.settings import Settings
from app.storage import garbage_collection as blobs

PROBLEM = "application/problem+json"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def settings(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Settings:
    """Everything here holds on both databases."""
    if request.param == "sqlite":
        return make_settings(key_cache_seconds=0)
    url = request.getfixturevalue("postgres_database")
    return make_settings(key_cache_seconds=0, database_url=url)


@pytest.fixture
def dataset_id(client: TestClient, kit: Any) -> str:
    return str(kit.upload(client, kit.points(), kit.images()).json()["id"])


@pytest.fixture
def count(app: FastAPI) -> Callable[[type[Base]], int]:
    def rows(table: type[Base]) -> int:
        with app.state.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    return rows


def keyed(client: TestClient, key: str | None) -> TestClient:
    client.headers.pop("idempotency-key", None)
    if key is not None:
        client.headers["Idempotency-Key"] = key
    return client


def same(first: Any, second: Any) -> None:
    assert first.status_code == second.status_code
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert first.headers["content-type"] == second.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def refused(answer: Any, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.slow
def test_a_job(client: TestClient, dataset_id: str, count: Any) -> None:
    body = {"dataset_id": dataset_id}
    first = keyed(client, "k1").post("/jobs/train", json=body)
    client.post(f"/jobs/{first.json()['id']}/cancel")
    same(first, client.post("/jobs/train", json=body))  # though its state is another now
    assert count(Job) == 1
    other = client.post("/jobs/train", json={**body, "seed": 1})
    assert refused(other, 422)["errors"][0]["pointer"] == "/Idempotency-Key"
    assert keyed(client, "k2").post("/jobs/train", json=body).json() != first.json()
    assert keyed(client, None).post("/jobs/train", json=body).status_code == 202
    assert count(Job) == 3
    assert count(IdempotencyRecord) == 2


@pytest.mark.slow
def test_a_data_set(client: TestClient, kit: Any, count: Any, settings: Settings) -> None:
    """Each request of a form has a boundary of its own; it is the same form all the same."""
    keyed(client, "k1")
    first = kit.upload(client, kit.points(), kit.images())
    assert first.status_code == 201
    same(first, kit.upload(client, kit.points(), kit.images()))
    assert client.get(first.headers["location"]).json() == first.json()
    for changed in (
        {"document": kit.points(), "images": kit.images(), "name": "other"},
        {"document": kit.points(2, 1), "images": kit.images()},
        {"document": kit.points(), "images": {**kit.images(), "2.png": kit.image(seed=9)}},
        {"document": kit.points(), "images": {**kit.images(), "3.png": kit.image(seed=3)}},
    ):
        refused(kit.upload(client, **changed), 422)
    assert count(Dataset) == 1
    assert not list(settings.folder("uploads").iterdir())


@pytest.mark.slow
def test_a_key_is_for_one_request(client: TestClient, kit: Any, dataset_id: str) -> None:
    keyed(client, "k1").post("/jobs/train", json={"dataset_id": dataset_id})
    refused(kit.upload(client, kit.points(), kit.images()), 422)
    refused(client.post("/jobs/train?x=1", json={"dataset_id": dataset_id}), 422)


@pytest.mark.slow
def test_a_refused_request_leaves_its_key_free(
    client: TestClient, kit: Any, dataset_id: str, count: Any
) -> None:
    keyed(client, "k1")
    wrong = kit.points()
    wrong["annotations"][0]["image_id"] = 99
    for _ in range(2):
        assert "99" in refused(kit.upload(client, wrong, kit.images()), 422)["detail"]
    assert kit.upload(client, kit.points(), kit.images()).status_code == 201
    keyed(client, "k2")
    refused(client.post("/jobs/train", json={"dataset_id": "none"}), 404)
    assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 202
    assert count(Job) == 1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é".encode("latin-1"), b"\x7f"])
def test_what_is_no_key(client: TestClient, dataset_id: str, key: Any) -> None:
    headers = {"Idempotency-Key": key}
    answer = client.post("/jobs/train", json={"dataset_id": dataset_id}, headers=headers)
    assert refused(answer, 422)["errors"][0]["pointer"] == "/Idempotency-Key"


@pytest.mark.slow
def test_the_longest_key(client: TestClient, dataset_id: str) -> None:
    keyed(client, '"' + "x" * 253 + '"')
    first = client.post("/jobs/train", json={"dataset_id": dataset_id})
    same(first, client.post("/jobs/train", json={"dataset_id": dataset_id}))


@pytest.mark.slow
def test_keys_are_each_owners_own(app: FastAPI, client: TestClient, kit: Any) -> None:
    answers = []
    for owner in ("ann", "bob"):
        with app.state.database.begin() as session:
            key, _ = keys.create(session, owner, Scope.WRITE)
        client.headers["Authorization"] = f"Bearer {key}"
        answers.append(kit.upload(keyed(client, "k1"), kit.points(), kit.images()))
    assert [a.status_code for a in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]


@pytest.mark.slow
def test_answers_are_kept_for_a_time(
    app: FastAPI, client: TestClient, dataset_id: str, count: Any, settings: Settings
) -> None:
    keyed(client, "k1")
    first = client.post("/jobs/train", json={"dataset_id": dataset_id})
    old = now() - timedelta(hours=settings.idempotency_hours, seconds=1)
    with app.state.database.begin() as session:
        session.execute(update(IdempotencyRecord).values(created_at=old))
    again = client.post("/jobs/train", json={"dataset_id": dataset_id})
    assert again.status_code == 202
    assert again.json() != first.json()
    assert (count(Job), count(IdempotencyRecord)) == (2, 1)


@pytest.mark.slow
def test_while_the_first_is_at_work(
    client: TestClient, dataset_id: str, count: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409 with Retry-After, before a byte of the second one's body is read."""
    entered, go = threading.Event(), threading.Event()
    pinned = blobs.pinned

    def slow(*args: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return pinned(*args)

    monkeypatch.setattr("app.jobs.training.pinned", slow)
    answers: list[Any] = []
    keyed(client, "k1")

    def post() -> None:
        answers.append(client.post("/jobs/train", json={"dataset_id": dataset_id}))

    thread = threading.Thread(target=post)
    thread.start()
    assert entered.wait(20)
    second = client.post("/jobs/train", json={"dataset_id": dataset_id})
    go.set()
    thread.join()
    refused(second, 409)
    assert second.headers["retry-after"] == "1"
    same(answers[0], client.post("/jobs/train", json={"dataset_id": dataset_id}))
    assert count(Job) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_at_once_make_one(
    app: FastAPI,
    client: TestClient,
    settings: Settings,
    dataset_id: str,
    count: Any,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two APIs on one database, both past the look for an earlier answer before either commits.
    The loser has the winner's answer; or 422, where it asked for something else."""
    both = threading.Barrier(2)
    pinned = blobs.pinned

    def together(*args: Any) -> Any:
        both.wait(60)
        return pinned(*args)

    monkeypatch.setattr("app.jobs.training.pinned", together)
    answers: list[Any] = []

    def post(client: TestClient, seed: int) -> None:
        body = {"dataset_id": dataset_id, "seed": seed}
        answers.append(client.post("/jobs/train", json=body, headers={"Idempotency-Key": "k"}))

    other = TestClient(create_app(settings))
    threads = [threading.Thread(target=post, args=args) for args in ((client, 0), (other, seed))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(Job) == count(IdempotencyRecord) == 1
    if seed == 0:
        same(*sorted(answers, key=lambda a: "idempotent-replayed" in a.headers))
    else:
        assert sorted(a.status_code for a in answers) == [202, 422]


@pytest.mark.slow
def test_a_crash_before_the_answer_leaves(
    client: TestClient, kit: Any, count: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, and then the plug was pulled: the retry has the answer."""
    pulled = RuntimeError("no power")

    def dies(*_: Any) -> None:
        raise pulled

    keyed(client, "k1")
    with monkeypatch.context() as patch:
        patch.setattr("app.storage.garbage_collection.forget", dies)  # what follows the commit
        assert kit.upload(client, kit.points(), kit.images()).status_code == 500
    assert count(Dataset) == 1
    again = kit.upload(client, kit.points(), kit.images())
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert client.get(again.headers["location"]).json() == again.json()
    assert count(Dataset) == 1


@pytest.mark.slow
def test_a_crash_before_the_commit_makes_nothing(
    client: TestClient, dataset_id: str, count: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = idempotency.save_response

    def dies(*args: Any) -> None:
        save(*args)  # the last step of the transaction
        raise RuntimeError("no power")

    keyed(client, "k1")
    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "save_response", dies)
        assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 500
    assert (count(Job), count(IdempotencyRecord)) == (0, 0)
    assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 202


@pytest.mark.slow
def test_a_client_that_leaves_while_it_repeats(
    app: FastAPI, client: TestClient, dataset_id: str
) -> None:
    keyed(client, "k1").post("/jobs/train", json={"dataset_id": dataset_id})
    messages = iter(
        [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"idempotency-key", b"k1")]
    scope = {"type": "http", "method": "POST", "path": "/jobs/train", "query_string": b""}
    more = {"headers": headers, "client": ("test", 1), "server": ("h", 80)}
    asyncio.run(app({**scope, **more, "scheme": "http", "root_path": ""}, receive, send))
    assert sent == []
    assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 202


@pytest.mark.slow
def test_the_description_names_the_header(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/datasets", "/jobs/train"):
        names = [p["name"].lower() for p in paths[path]["post"]["parameters"]]
        assert "idempotency-key" in names


class TestFingerprint:
    @staticmethod
    def of(chunks: list[bytes], kind: str = "application/json", path: str = "/x") -> str:
        left = list(chunks)

        async def receive() -> Any:
            data = left.pop(0) if left else b""
            return {"type": "http.request", "body": data, "more_body": bool(left)}

        headers = [(b"content-type", kind.encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": headers,
        }
        body = _Body(scope, receive)
        assert asyncio.run(body.read())
        return body.fingerprint()

    @pytest.mark.slow
    @given(st.text("-ab", max_size=40), st.text("-ab", min_size=1, max_size=4), st.data())
    def test_it_is_the_whole_without_its_boundaries(
        self, text: str, boundary: str, data: st.DataObject
    ) -> None:
        """Against Python's own split, in whatever pieces the body comes."""
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        raw, ends = text.encode(), [0, *cuts, len(text)]
        chunks = [raw[a:b] for a, b in pairwise(ends)]
        kind = "multipart/form-data"
        whole = hashlib.sha256(b"4:POST,2:/x,0:,19:multipart/form-data,")
        whole.update(b"".join(raw.split(boundary.encode())))
        assert self.of(chunks, f'{kind}; boundary="{boundary}"') == whole.hexdigest()

    def test_everything_counts(self) -> None:
        form = "multipart/form-data; boundary=xyz"
        found = {
            self.of([b"a"]),
            self.of([b"b"]),
            self.of([b""]),
            self.of([b"a"], path="/y"),
            self.of([b"a"], "text/plain"),
            self.of([b"a"], form),
            self.of([b"--xyz\r\nabc\r\n--xyz--\r\n"], form),
            self.of([b"--xyz\r\nabd\r\n--xyz--\r\n"], form),
        }
        assert len(found) == 8
        other = "multipart/form-data; boundary=12345"
        assert self.of([b"--12345\r\nabc\r\n--12", b"345--\r\n"], other) in found
