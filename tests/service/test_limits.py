"""Requests a minute, quotas, and the size of bodies."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from app.auth import keys
from app.auth.keys import Scope
from app.auth.rate_limit import Rates
from app.db.models import Dataset, Job, JobState, Model
from app.errors import TooManyRequests
from app.main import create_app
from app.settings import Settings

PROBLEM = "application/problem+json"
MakeSettings = Callable[..., Settings]


def refused(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{kind}"
    return body


def key_of(app: FastAPI, owner: str) -> dict[str, str]:
    with app.state.database.begin() as session:
        text, _ = keys.create(session, owner, Scope.WRITE)
    return {"Authorization": f"Bearer {text}"}


class TestRates:
    @pytest.fixture(autouse=True)
    def one_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Windows begin with the minutes of the clock, so a test could lie in two."""
        still = SimpleNamespace(time=lambda: 1_000_000_020.0)
        monkeypatch.setattr("limits.aio.storage.memory.time", still)
        monkeypatch.setattr("app.auth.rate_limit.time", still)

    @pytest.fixture
    def app(self, make_settings: MakeSettings) -> FastAPI:
        limits = {"reads_per_minute": 3, "writes_per_minute": 2}
        return create_app(make_settings(key_cache_seconds=0, **limits))

    @pytest.mark.slow
    def test_reads_and_writes_are_counted_apart(self, client: TestClient) -> None:
        assert [client.get("/jobs").status_code for _ in range(3)] == [200] * 3
        answer = client.get("/jobs")
        assert refused(answer, 429, "too-many-requests")["limit"] == 3
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert client.head("/jobs").status_code == 429
        assert [client.post("/jobs/x/cancel").status_code for _ in range(3)] == [404, 404, 429]
        assert [client.get("/healthz").status_code for _ in range(9)] == [200] * 9

    @pytest.mark.slow
    def test_each_key_has_its_own_count(self, app: FastAPI, client: TestClient) -> None:
        ann, also_ann, bob = (key_of(app, owner) for owner in ("ann", "ann", "bob"))
        for key in (ann, also_ann, bob):
            statuses = [client.get("/jobs", headers=key).status_code for _ in range(4)]
            assert statuses == [200, 200, 200, 429]

    @pytest.mark.slow
    def test_strangers_are_counted_by_address(self, app: FastAPI, client: TestClient) -> None:
        key = key_of(app, "ann")
        assert [client.get("/jobs").status_code for _ in range(4)] == [401, 401, 401, 429]
        other = TestClient(app, client=("203.0.113.9", 1))
        assert other.get("/jobs").status_code == 401
        assert client.get("/jobs", headers=key).status_code == 200

    @pytest.mark.slow
    def test_there_is_no_limit_unless_one_is_set(self, settings: Settings) -> None:
        client = TestClient(create_app(settings))
        assert {client.get("/jobs").status_code for _ in range(100)} == {200}

    @pytest.mark.service
    def test_processes_share_a_count_in_redis(
        self, redis_database: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.auth.rate_limit._PATIENCE", 60)
        settings = make_settings(broker_url=redis_database, reads_per_minute=3)

        async def count() -> list[bool]:
            processes = [Rates(settings), Rates(settings)]
            let_in = []
            for turn in range(5):
                try:
                    await processes[turn % 2].count("ann", write=False)
                    let_in.append(True)
                except TooManyRequests:
                    let_in.append(False)
            return let_in

        assert asyncio.run(count()) == [True, True, True, False, False]

    def test_nobody_is_refused_where_redis_is_away(self, make_settings: MakeSettings) -> None:
        away = "redis://:secret@127.0.0.1:1/0"
        rates = Rates(make_settings(broker_url=away, reads_per_minute=1))

        async def count() -> None:
            for _ in range(3):
                await rates.count("ann", write=False)

        asyncio.run(count())


class TestQuotas:
    @pytest.fixture
    def app(self, make_settings: MakeSettings) -> FastAPI:
        return create_app(make_settings(quota_datasets=2, quota_active_jobs=1))

    @pytest.mark.slow
    def test_data_sets(self, app: FastAPI, client: TestClient, kit: Any) -> None:
        ann, bob = key_of(app, "ann"), key_of(app, "bob")
        client.headers.update(ann)
        urls = [kit.upload(client, kit.points(), kit.images()) for _ in range(2)]
        answer = kit.upload(client, kit.points(), kit.images())
        body = refused(answer, 429, "quota-exceeded")
        assert (body["limit"], body["used"], answer.headers["retry-after"]) == (2, 2, "3600")
        client.headers.update(bob)
        assert kit.upload(client, kit.points(), kit.images()).status_code == 201
        client.headers.update(ann)
        assert client.delete(urls[0].headers["location"]).status_code == 204
        assert kit.upload(client, kit.points(), kit.images()).status_code == 201

    @pytest.mark.slow
    def test_they_hold_for_a_service_without_keys(self, client: TestClient, kit: Any) -> None:
        statuses = [kit.upload(client, kit.points(), kit.images()).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]

    @pytest.mark.slow
    def test_a_form_that_has_no_room_is_not_read(self, app: FastAPI, client: TestClient) -> None:
        with app.state.database.begin() as session:
            row = {"name": "n", "status": "ready", "images": 0, "annotations": 0, "report": {}}
            session.add_all(Dataset(**row, document_sha="0" * 64) for _ in range(2))
        assert post_unread(app, "/datasets", 10) == [429]

    @pytest.mark.slow
    def test_jobs_at_once(self, app: FastAPI, client: TestClient, kit: Any) -> None:
        client.headers.update(key_of(app, "ann"))
        ids = [kit.upload(client, kit.points(), kit.images()).json()["id"] for _ in range(2)]
        first = client.post("/jobs/train", json={"dataset_id": ids[0]})
        assert first.status_code == 202
        answer = client.post("/jobs/train", json={"dataset_id": ids[1]})
        assert "cancel it" in refused(answer, 429, "quota-exceeded")["detail"]
        assert answer.headers["retry-after"] == "60"
        assert len(client.get("/jobs").json()["jobs"]) == 1
        assert client.post(f"/jobs/{first.json()['id']}/cancel").status_code == 202
        assert client.post("/jobs/train", json={"dataset_id": ids[1]}).status_code == 202

    @pytest.mark.slow
    def test_an_admins_job_is_the_owners(self, app: FastAPI, client: TestClient, kit: Any) -> None:
        client.headers.update(key_of(app, "ann"))
        body = {"dataset_id": kit.upload(client, kit.points(), kit.images()).json()["id"]}
        with app.state.database.begin() as session:
            text, _ = keys.create(session, "root", Scope.ADMIN)
        admin = {"Authorization": f"Bearer {text}"}
        assert client.post("/jobs/train", json=body, headers=admin).status_code == 202
        assert client.post("/jobs/train", json=body).status_code == 429

    @pytest.mark.slow
    def test_bytes(self, make_settings: MakeSettings, kit: Any) -> None:
        app = create_app(make_settings(quota_bytes=6_000))
        client = TestClient(app)
        first = kit.upload(client, kit.points(), kit.images())
        with app.state.database.begin() as session:
            sent = session.get_one(Dataset, first.json()["id"]).bytes
            files = sum(map(len, kit.images().values()))
            assert files < sent < files + 1_000  # and the document
            session.execute(update(Dataset).values(bytes=3_000))
            session.add(Job(dataset_id=first.json()["id"], **JOB))
            session.flush()
            job = session.query(Job).one()
            session.add(Model(job_id=job.id, size=2_999, **MODEL))
        body = refused(kit.upload(client, kit.points(), kit.images()), 429, "quota-exceeded")
        assert (body["limit"], body["used"]) == (6_000, 5_999)
        with app.state.database.begin() as session:
            session.execute(update(Model).values(size=0))
        assert kit.upload(client, kit.points(), kit.images()).status_code == 201

    @pytest.mark.slow
    def test_bytes_that_are_more_than_was_said(self, make_settings: MakeSettings, kit: Any) -> None:
        """A form that unpacks to more than it is: the transaction that would store it counts."""
        app = create_app(make_settings(quota_bytes=20_000))
        black = kit.image(200, 200, kind="BMP")
        document = kit.points(1, 1)
        document["images"][0] |= {"width": 200, "height": 200, "file_name": "1.bmp"}
        answer = kit.upload(TestClient(app), document, kit.zipped({"1.bmp": black}))
        refused(answer, 429, "quota-exceeded")
        with app.state.database.read() as session:
            assert session.query(Dataset).count() == 0
        assert not any(p.is_file() for p in (app.state.settings.data_dir / "blobs").rglob("*"))


JOB = {
    "method": "sapnet++",
    "preset": "cpu",
    "seed": 0,
    "request": {},
    "state": JobState.SUCCEEDED,
}
MODEL = {"name": "m", "categories": [], "sha256": "1" * 64, "meta": {}}


class TestBodies:
    @pytest.fixture
    def app(self, make_settings: MakeSettings) -> FastAPI:
        sizes = {"max_json_bytes": 1_000, "max_image_bytes": 2_000, "max_upload_bytes": 3_000}
        return create_app(make_settings(**sizes))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("path", "limit"),
        [
            ("/jobs/train", 1_000),
            ("/predict", 2_000),
            ("/datasets", 3_000),
            ("/jobs/x/cancel", 1_000),
            ("/nowhere", 1_000),
        ],
    )
    def test_a_header_that_says_too_much(self, app: FastAPI, path: str, limit: int) -> None:
        assert post_unread(app, path, limit + 1) == [413]

    @pytest.mark.slow
    @pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k1"}])
    @pytest.mark.parametrize(
        ("path", "kind", "limit"),
        [
            ("/jobs/train", "application/json", 1_000),
            ("/predict", "multipart/form-data; boundary=x", 2_000),
            ("/predict", "application/x-www-form-urlencoded", 2_000),
            ("/datasets", "multipart/form-data; boundary=x", 3_000),
        ],
    )
    def test_a_body_that_does_not_say_how_long_it_is(
        self, client: TestClient, path: str, kind: str, limit: int, key: dict[str, str]
    ) -> None:
        head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'

        def chunks() -> Iterator[bytes]:
            yield head if "multipart" in kind else b" " * len(head)
            for _ in range(limit // 100 + 1):
                yield b" " * 100

        headers = {"content-type": kind, **key}
        answer = client.post(path, content=chunks(), headers=headers)
        assert f"{limit:,} bytes" in refused(answer, 413, "too-large")["detail"]

    @pytest.mark.slow
    def test_a_repeated_one_too(self, app: FastAPI, client: TestClient, kit: Any) -> None:
        """Read outside the routes, where it is only compared."""
        files = {"1.png": kit.image(seed=1)}
        headers = {"Idempotency-Key": "k1"}
        client.headers.update(headers)
        assert kit.upload(client, kit.points(1), files).status_code == 201
        body = (b" " * 100 for _ in range(31))
        kind = {"content-type": "multipart/form-data; boundary=x"}
        refused(client.post("/datasets", content=body, headers=kind), 413, "too-large")

    @pytest.mark.slow
    def test_the_largest_one(self, client: TestClient) -> None:
        body = b'{"dataset_id": "x"' + b" " * (1_000 - 19) + b"}"
        kind = {"content-type": "application/json"}
        assert client.post("/jobs/train", content=body, headers=kind).status_code == 404
        chunks = iter([body[:500], body[500:]])
        assert client.post("/jobs/train", content=chunks, headers=kind).status_code == 404


def post_unread(app: FastAPI, path: str, length: int) -> list[int]:
    """Status of an answer that came before a byte of the body was asked for."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"%d" % length), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "root_path": ""}
    more = {"headers": headers, "client": ("test", 1), "server": ("h", 80), "scheme": "http"}
    asyncio.run(app({**scope, **more}, receive, send))
    return [m["status"] for m in sent if "status" in m]
