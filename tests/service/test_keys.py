"""API keys: who gets in, what for, and that nobody sees what is another's."""

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.auth import keys
from app.auth.keys import Scope
from app.auth.own_site import is_local
from app.cli.main import app as cli
from app.db.columns import now
from app.db.models import ApiKey, Export, Job, JobState, Model, PseudoMask
from app.main import create_app
from app.settings import Settings

Header = dict[str, str]
PROBLEM = "application/problem+json"
LOCAL = "http://localhost:8000"
STRANGER = ("203.0.113.9", 40_000)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(key_cache_seconds=0)


@pytest.fixture
def new_key(app: FastAPI) -> Callable[..., Header]:
    def new(owner: str, scope: Scope = Scope.WRITE, **values: Any) -> Header:
        with app.state.database.begin() as session:
            key, _ = keys.create(session, owner, scope, **values)
        return {"Authorization": f"Bearer {key}"}

    return new


@pytest.fixture
def everything(app: FastAPI, client: TestClient, kit: Any, new_key: Any) -> dict[str, str]:
    """Ann's: a data set, a job of it that has succeeded, and its model; and an upload."""
    client.headers.update(new_key("ann"))
    dataset = kit.upload(client, kit.points(), kit.images()).json()["id"]
    job = client.post("/jobs/train", json={"dataset_id": dataset}).json()["id"]
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    upload = client.post("/uploads", headers=tus).headers["location"].split("/")[-1]
    client.headers.pop("authorization")
    sha = app.state.storage.put_bytes(b"a file")
    with app.state.database.begin() as session:
        files = dict.fromkeys(("sha256", "weights_sha", "onnx_sha", "curves_sha"), sha)
        model = Model(job_id=job, name="m", categories=[], size=6, meta={}, **files)
        session.add(model)
        row = session.get_one(Job, job)
        session.flush()
        row.state, row.model_id, row.finished_at = JobState.SUCCEEDED, model.id, now()
        row.gallery_sha = row.log_sha = row.report_html_sha = sha
        numbers = dict.fromkeys(("x", "y", "w", "h", "area", "quality"), 0.0)
        rle = {"size": [30, 40], "counts": "0"}
        mask = {"annotation_id": 100, "image_id": 1, "category_id": 0, "source": "refined"}
        session.add(PseudoMask(job_id=job, segmentation=rle, **mask, **numbers))
        over = {"state": JobState.SUCCEEDED, "method": "export", "preset": "", "seed": 0}
        asked = {"format": "png", "min_quality": 0, "images": False, "simplify": 0}
        exporting = Job(kind="export", dataset_id=dataset, request=asked, progress=1.0, **over)
        session.add(exporting)
        session.flush()
        session.add(Export(id=exporting.id, job_id=job, filename="masks.zip", sha256=sha, size=6))
        return {
            "dataset_id": dataset,
            "job_id": job,
            "model_id": model.id,
            "image_id": "1",
            "upload_id": upload,
            "mask_id": f"{job}.100",
            "other_job_id": job,
            "export_id": exporting.id,
        }


def refused(answer: Any, status: int) -> str:
    """The detail of a refusal."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    return str(answer.json()["detail"])


def test_a_key_is_found_by_itself_alone(app: FastAPI) -> None:
    with app.state.database.begin() as session:
        text, row = keys.create(session, "ann", Scope.READ, name="laptop")
        assert re.fullmatch(r"sapnet_[0-9a-f]{8}_[\w-]{43}", text)
        assert keys.find(session, text) is row
        other = text[:-1] + ("A" if text[-1] != "A" else "B")
        for wrong in (other, text[:-1], text + "A", row.prefix, "", "sapnet_é", "\udcff", "\0"):
            assert keys.find(session, wrong) is None
        kept = " ".join(str(value) for value in vars(row).values())
        assert text[len(row.prefix) :] not in kept
        assert keys.every(session) == [row]


def test_keys_end(app: FastAPI) -> None:
    with app.state.database.begin() as session:
        short, _ = keys.create(session, "ann", Scope.READ, expires_at=now() - timedelta(seconds=1))
        assert keys.find(session, short) is None
        text, row = keys.create(session, "ann", Scope.READ, expires_at=now() + timedelta(hours=1))
        assert keys.find(session, text) is row
        keys.revoke(session, row.prefix)
        session.expire_all()
        assert keys.find(session, text) is None
        assert keys.any_exist(session)
        with pytest.raises(keys.NotFound, match=row.prefix):
            keys.revoke(session, row.prefix)


def test_scopes_include_others() -> None:
    included = {scope: [s for s in Scope if scope.allows(s)] for scope in Scope}
    assert included == {
        "read": ["read"],
        "write": ["read", "write"],
        "metrics": ["metrics"],
        "admin": ["read", "write", "metrics", "admin"],
    }


@pytest.mark.slow
def test_without_a_key_it_answers_its_own_machine_alone(
    app: FastAPI, client: TestClient, make_settings: Callable[..., Settings]
) -> None:
    assert client.get("/datasets").status_code == 200
    assert client.get("/datasets", headers={"Authorization": "Bearer x"}).status_code == 200
    for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert TestClient(app, LOCAL, client=(host, 1)).get("/datasets").status_code == 200
    stranger = TestClient(app, client=STRANGER)
    answer = stranger.get("/datasets")
    assert "sapnet-service keys create" in refused(answer, 401)
    assert answer.headers["www-authenticate"] == 'Bearer realm="sapnet"'
    assert stranger.get("/healthz").status_code == 200
    trusting = create_app(make_settings(allow_without_keys=True))
    assert TestClient(trusting, client=STRANGER).get("/datasets").status_code == 200


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("/run/sapnet.sock", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_what_is_local(address: str, local: bool) -> None:
    assert is_local(address) == local


@pytest.mark.slow
def test_the_first_key_closes_the_door_for_good(
    app: FastAPI, client: TestClient, new_key: Any
) -> None:
    assert client.get("/jobs").status_code == 200
    key = new_key("ann")
    answer = client.get("/jobs")
    assert "Authorization: Bearer" in refused(answer, 401)
    assert answer.headers["www-authenticate"] == 'Bearer realm="sapnet"'
    assert client.get("/jobs", headers=key).status_code == 200
    lower = {"authorization": key["Authorization"].replace("Bearer", "bearer ")}
    assert client.get("/jobs", headers=lower).status_code == 200
    with app.state.database.begin() as session:
        keys.revoke(session, keys.every(session)[0].prefix)
    assert 'error="invalid_token"' in client.get("/jobs", headers=key).headers["www-authenticate"]
    refused(client.get("/jobs"), 401)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["Bearer", "Bearer ", "Basic eDp5", "sapnet_1", "Bearer é"])
def test_what_is_no_key(client: TestClient, new_key: Any, sent: str) -> None:
    new_key("ann")
    refused(client.get("/jobs", headers={"Authorization": sent.encode("latin-1")}), 401)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/readyz", "/docs", "/openapi.json", "/problems/unauthorized"],
)
def test_what_is_open(client: TestClient, new_key: Any, path: str) -> None:
    new_key("ann")
    assert client.get(path).status_code == 200
    assert client.head(path).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/nowhere", "/metrics", "/problems", "//healthz", "/docs/x"])
def test_what_is_not(client: TestClient, new_key: Any, path: str) -> None:
    new_key("ann")
    refused(client.get(f"http://testserver{path}"), 401)


@pytest.mark.slow
def test_scopes(client: TestClient, new_key: Any, kit: Any) -> None:
    client.headers.update(new_key("ann", Scope.READ))
    assert client.get("/datasets").status_code == 200
    answer = kit.upload(client, kit.points(), kit.images())
    assert "scope write" in refused(answer, 403)
    assert 'error="insufficient_scope", scope="write"' in answer.headers["www-authenticate"]
    refused(client.post("/jobs/x/cancel"), 403)
    refused(client.delete("/datasets/x"), 403)
    files = {"file": ("a.png", kit.image())}
    sent = client.post("/predict", files=files, data={"model": "none"})
    assert "no model" in refused(sent, 404)  # it changes nothing, so reading is enough
    client.headers.update(new_key("ann", Scope.WRITE))
    assert kit.upload(client, kit.points(), kit.images()).status_code == 201


def test_an_uninvited_upload_is_not_read(app: FastAPI, new_key: Any) -> None:
    new_key("ann")
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    for path in ("/datasets", "/predict", "/jobs/train"):
        headers = [(b"content-length", b"1000000"), (b"content-type", b"multipart/form-data")]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
        more = {"headers": headers, "client": ("test", 1), "server": ("h", 80)}
        asyncio.run(app({**scope, **more, "scheme": "http", "root_path": ""}, receive, send))
    assert [m["status"] for m in sent if "status" in m] == [401] * 3


@pytest.mark.slow
@pytest.mark.both_stacks
def test_nobody_sees_what_is_anothers(
    client: TestClient, new_key: Any, everything: dict[str, str]
) -> None:
    """Every route there is that names a thing, with the things of another owner."""
    paths = client.get("/openapi.json").json()["paths"]
    strangers = {
        "bob": new_key("bob"),
        "reader": new_key("bob", Scope.READ),
        "nobody's": new_key("ann "),
    }
    hers, admin = new_key("ann", Scope.READ), new_key("root", Scope.ADMIN)
    seen = 0
    for template, methods in paths.items():
        names = re.findall(r"{(\w+)}", template)
        if not names or not set(names) <= set(everything):
            continue
        path = template.format(**everything)
        for key in strangers.values():
            tus = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
            tus |= {"X-HTTP-Method-Override": "DELETE"}
            tus |= {"Content-Type": "application/offset+octet-stream"}
            for method in sorted(set(methods) - {"options"}):
                status = client.request(method, path, headers=key | tus).status_code
                wanted = {404} if method == "get" else {403, 404, 415, 422}
                assert status in wanted, (method, path, status)
        if "get" in methods:
            there = 409 if path.endswith("/predictions") else 200  # it is a training
            for key in (hers, admin):
                assert client.get(path, headers=key).status_code == there, path
                seen += 1
    assert seen >= 2 * 12
    query = {"model": everything["model_id"], "image": "1"}
    assert "no model" in refused(
        client.get("/predict", params=query, headers=hers | strangers["bob"]), 404
    )
    still = client.get(f"/datasets/{everything['dataset_id']}", headers=hers)
    assert still.status_code == 200


@pytest.mark.slow
@pytest.mark.both_stacks
def test_lists_hold_ones_own(
    app: FastAPI, client: TestClient, new_key: Any, everything: dict[str, str]
) -> None:
    bob, ann, admin = new_key("bob"), new_key("ann"), new_key("root", Scope.ADMIN)
    for name in ("datasets", "jobs", "models"):
        counts = [len(client.get(f"/{name}", headers=h).json()[name]) for h in (bob, ann, admin)]
        there = 2 if name == "jobs" else 1  # a training and an export
        assert counts == [0, there, there], name
    of_ann = {"dataset_id": everything["dataset_id"]}
    assert client.get("/jobs", params=of_ann, headers=bob).json()["jobs"] == []
    refused(client.post("/jobs/train", json=of_ann, headers=bob), 404)
    assert client.post("/jobs/train", json=of_ann, headers=admin).status_code == 202
    assert len(client.get("/jobs", headers=ann).json()["jobs"]) == 3  # of her data set, so hers


@pytest.mark.slow
@pytest.mark.both_stacks
def test_the_same_image_is_each_owners_own(client: TestClient, new_key: Any, kit: Any) -> None:
    """Files are stored once; who deletes a data set must not see, nor take, the other one's."""
    urls = {}
    for owner in ("ann", "bob"):
        urls[owner] = new_key(owner)
        answer = kit.upload(client_with(client, urls[owner]), kit.points(), kit.images())
        urls[owner]["url"] = answer.headers["location"]
    ann, bob = urls["ann"], urls["bob"]
    client_with(client, ann)
    assert client.delete(ann["url"]).status_code == 204
    refused(client.delete(bob["url"]), 404)
    client_with(client, bob)
    assert client.get(f"{bob['url']}/images/1").content == kit.images()["1.png"]
    parent = kit.upload(client, kit.points(), kit.images(), parent=ann["url"].split("/")[-1])
    refused(parent, 422)


def client_with(client: TestClient, key: Header) -> TestClient:
    client.headers["Authorization"] = key["Authorization"]
    return client


@pytest.mark.slow
def test_what_was_made_before_there_were_keys_is_the_admins(
    client: TestClient, new_key: Any, kit: Any
) -> None:
    url = kit.upload(client, kit.points(), kit.images()).headers["location"]
    refused(client.get(url, headers=new_key("ann")), 404)
    assert client.get(url, headers=new_key("root", Scope.ADMIN)).status_code == 200


@pytest.mark.slow
def test_figures_are_of_the_whole_service(
    client: TestClient, new_key: Any, everything: dict[str, str]
) -> None:
    page = client.get("/metrics", headers=new_key("prometheus", Scope.METRICS)).text
    assert re.search(r"^sapnet_datasets 1\.0$", page, re.MULTILINE)


@pytest.mark.slow
def test_a_revoked_key_goes_on_for_no_longer_than_is_said(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(make_settings(key_cache_seconds=30))
    clock = [1000.0]
    monkeypatch.setattr("app.auth.keys.time.monotonic", lambda: clock[0])
    with app.state.database.begin() as session:
        key, row = keys.create(session, "ann", Scope.READ)
    client = TestClient(app, headers={"Authorization": f"Bearer {key}"})
    assert client.get("/jobs").status_code == 200
    with app.state.database.begin() as session:
        keys.revoke(session, row.prefix)
    clock[0] += 29
    assert client.get("/jobs").status_code == 200
    clock[0] += 2
    refused(client.get("/jobs"), 401)


@pytest.mark.slow
def test_no_keys_can_be_looked_up(app: FastAPI, client: TestClient) -> None:
    with app.state.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE api_key"))
    answer = client.get("/jobs")
    assert "/readyz" in refused(answer, 503)
    assert answer.headers["retry-after"] == "5"
    assert client.get("/healthz").status_code == 200


class TestCommands:
    @pytest.fixture
    def run(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setenv("SAPNET_DATA_DIR", str(settings.data_dir))
        if settings.database_url:
            monkeypatch.setenv("SAPNET_DATABASE_URL", settings.database_url)

        def run(*command: str) -> Any:
            return CliRunner().invoke(cli, list(command))

        return run

    @pytest.mark.slow
    def test_create_list_revoke(self, run: Any, client: TestClient) -> None:
        assert "no key" in run("keys", "list").stderr
        made = run("keys", "create", "ann", "--scope", "read", "--name", "laptop", "--days", "3")
        assert made.exit_code == 0, made.output
        key = made.stdout.strip()
        assert client.get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        prefix = key[:15]
        listed = run("keys", "list").stdout
        assert f"{prefix}  ann  read  laptop" in listed
        assert key not in listed
        assert run("keys", "revoke", prefix).exit_code == 0
        assert "revoked" in run("keys", "list").stdout
        again = run("keys", "revoke", prefix)
        assert (again.exit_code, "keys list" in again.stderr) == (1, True)
        refused(client.get("/jobs", headers={"Authorization": f"Bearer {key}"}), 401)

    @pytest.mark.parametrize(
        "wrong", [[""], ["x" * 65], ["a\nb"], ["ann", "--scope", "all"], ["ann", "--days", "0"]]
    )
    def test_wrong_commands(self, run: Any, app: FastAPI, wrong: list[str]) -> None:
        assert run("keys", "create", *wrong).exit_code == 2
        with app.state.database.read() as session:
            assert session.query(ApiKey).count() == 0

    def test_serve_keeps_to_itself_without_a_key(self, run: Any) -> None:
        answer = run("serve", "--host", "0.0.0.0", "--port", "0", "--no-worker")
        assert answer.exit_code == 2
        assert "sapnet-service keys create" in answer.stderr
        assert "SAPNET_ALLOW_WITHOUT_KEYS" in answer.stderr


@pytest.mark.slow
@pytest.mark.both_stacks
def test_figures_of_all_owners_are_not_an_owners(client: TestClient, new_key: Any) -> None:
    """/metrics counts the jobs and data sets of all: for admins, and for keys made for it."""
    status = {
        scope: client.get("/metrics", headers=new_key("ann", scope)).status_code for scope in Scope
    }
    assert status == {Scope.READ: 403, Scope.WRITE: 403, Scope.METRICS: 200, Scope.ADMIN: 200}
    scraper = new_key("prometheus", Scope.METRICS)
    for path in ("/datasets", "/jobs", "/models"):
        assert "metrics" in refused(client.get(path, headers=scraper), 403)
    refused(client.delete("/datasets/x", headers=scraper), 403)
