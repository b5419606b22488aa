"""The app as a whole: what it loads, how it answers what it does not know, its health."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.errors import PROBLEMS, Unavailable
from app.main import create_app
from app.settings import Settings


@pytest.mark.slow
def test_the_api_loads_nothing_that_few_requests_need() -> None:
    heavy = ("torch", "torchvision", "numba", "scipy", "skimage", "celery", "worker")
    heavy += ("typer", "pynvml", "alembic", "redis", "httpx2", "authlib", "limits")
    heavy += ("sapnet.data.exporters", "sapnet.data.importers", "sapnet.config.schema")
    heavy += ("numpy", "PIL", "pycocotools", "structlog", "rich")
    heavy += ("sqlalchemy.dialects.postgresql", "opentelemetry.sdk", "app.auth.oidc.login")
    code = f"import sys, app.main; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_as_before_once_the_api_is_loaded(enabled: bool) -> None:
    """None while it is loaded: see `app.loading`."""
    code = f"""if True:
        import gc
        {"gc.enable" if enabled else "gc.disable"}()
        import app
        collected = []
        gc.callbacks.append(lambda phase, info: collected.append(gc.isenabled()))
        import app.main
        print(gc.isenabled(), False in collected)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(enabled), "False"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_api_alone_takes_little_memory() -> None:
    """By /proc: what getrusage tells of a child begins with the peak of its parent."""
    code = "import app.main; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (peak,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("VmHWM")]
    assert int(peak) / 1024 < 143  # 150 MB; it takes 79 MiB


@pytest.mark.slow
def test_the_index_names_what_is_there(client: TestClient) -> None:
    index = client.get("/").json()
    for name in ("documentation", "openapi", "datasets", "jobs", "models", "health"):
        assert client.get(index[name]).status_code == 200, name


@pytest.mark.slow
def test_operations_have_ids_of_their_own(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    ids = [op["operationId"] for methods in paths.values() for op in methods.values()]
    assert len(ids) == len(set(ids))
    assert {"/datasets", "/jobs/train", "/predict", "/readyz"} <= set(paths)
    assert "multipart/form-data" in paths["/datasets"]["post"]["requestBody"]["content"]


@pytest.mark.slow
def test_the_api_describes_its_errors_as_they_are(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"].strip() == operation["summary"]
            content = operation["responses"]["default"]["content"]
            assert list(content) == ["application/problem+json"]
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used <= set(schemas)
    told = client.get("/datasets", params={"limit": 0}).json()
    assert set(told) == set(schemas["Problem"]["properties"])
    assert set(told["errors"][0]) == set(schemas["ValidationIssueOut"]["properties"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/datasets", "GET, HEAD, POST"),
        ("/datasets/x", "DELETE, GET, HEAD"),
        ("/jobs/x/cancel", "POST"),
        ("/predict", "GET, HEAD, POST"),
    ],
)
def test_a_wrong_method_names_the_right_ones(client: TestClient, path: str, allowed: str) -> None:
    answer = client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert allowed in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("HEAD", "/nowhere", 404),
        ("GET", "/datasets/nobody", 404),
        ("GET", "/datasets/nobody/images", 404),
        ("GET", "/datasets/nobody/images/1", 404),
        ("GET", "/datasets/nobody/images/one", 422),
        ("GET", f"/datasets/nobody/images/{10**30}", 422),
        ("DELETE", "/datasets/nobody", 404),
        ("PUT", "/datasets", 405),
        ("HEAD", "/jobs/train", 404),
        ("GET", "/datasets?limit=0", 422),
        ("GET", "/datasets?cursor=%00", 422),
        ("GET", "/datasets?cursor=MQ", 422),  # a cursor, of something else
        ("GET", "/problems/unknown", 404),
    ],
)
def test_every_refusal_is_a_problem(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if method != "HEAD":
        body = answer.json()
        assert {"type", "title", "status", "detail", "instance"} <= set(body)
        assert body["status"] == status
        assert body["type"] == "about:blank" or client.get(body["type"]).status_code == 200


def test_validation_points_and_does_not_echo(client: TestClient) -> None:
    answer = client.get("/datasets", params={"limit": "s3cret"})
    assert answer.json()["errors"][0]["part"] == "query"
    assert answer.json()["errors"][0]["pointer"] == "/limit"
    assert "s3cret" not in answer.text
    broken = client.post(
        "/jobs/train", content=b'{"a": ', headers={"content-type": "application/json"}
    )
    assert broken.status_code == 422
    assert broken.json()["errors"][0]["part"] == "body"


def test_a_broken_form_of_another_route(client: TestClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/predict", content=b"nonsense", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "about:blank"


@pytest.mark.slow
def test_types_of_problems_can_be_looked_up(client: TestClient) -> None:
    for kind in PROBLEMS.values():
        answer = client.get(f"/problems/{kind.slug}")
        assert answer.status_code == 200
        assert answer.json()["title"]


def test_a_bug_tells_nothing(app: FastAPI, client: TestClient) -> None:
    @app.get("/bug")
    def bug() -> None:
        raise KeyError("/secret/path")

    @app.get("/later")
    def later() -> None:
        raise Unavailable("Not now.", headers={"Retry-After": "5"}, since="noon")

    answer = client.get("/bug")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    answer = client.get("/later")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["since"] == "noon"


@pytest.mark.slow
def test_head_ends_an_endless_stream(app: FastAPI, client: TestClient) -> None:
    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"x"

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(forever(), headers={"X-Here": "yes"})

    answer = client.head("/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-here"] == "yes"


@pytest.mark.slow
def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"database": "ok", "storage": "ok"}


def test_not_ready_before_the_migration_nor_without_storage(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = make_settings(database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    app = create_app(empty)
    monkeypatch.setattr(app.state.storage, "ping", (tmp_path / "nowhere").read_bytes)
    with TestClient(app) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "sapnet-service migrate" in answer.json()["checks"]["database"]
        assert answer.json()["checks"]["storage"] == "does not answer (FileNotFoundError)"
        assert client.get("/healthz").status_code == 200


@pytest.mark.slow
def test_metrics_count_by_route_template(client: TestClient) -> None:
    def count() -> float:
        text = client.get("/metrics").text
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        jobs = {s.labels["state"]: s.value for s in samples if s.name == "sapnet_jobs"}
        assert jobs["queued"] == 0
        labels = {"method": "GET", "route": "/datasets/{dataset_id}", "status": "404"}
        wanted = [s for s in samples if s.name == "sapnet_http_requests_total"]
        return sum(s.value for s in wanted if s.labels == labels)

    before = count()
    for name in ("a", "b"):
        client.get(f"/datasets/{name}")
    assert count() == before + 2


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose hands on what is not set as empty: a Path("") would be the folder it stands in."""
    for name in ("BACKBONE_WEIGHTS", "DATABASE_URL", "PORT"):
        monkeypatch.setenv(f"SAPNET_{name}", "")
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.backbone_weights is settings.database_url is None
    assert settings.port == 8000


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "SAPNET_DATA_DIR": str(tmp_path / "d"),
        "SAPNET_PROPOSALS": '{"kind": "sam"}',
        "SAPNET_TRAINER_COMMAND": '["python", "x.py"]',
        "SAPNET_BROKER_URL": "redis://r",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.database == f"sqlite:///{tmp_path}/d/sapnet.db"
    assert settings.proposals == {"kind": "sam"}
    assert settings.trainer_command == ("python", "x.py")
    assert not settings.embedded
    monkeypatch.setenv("SAPNET_PORT", "70000")
    with pytest.raises(ValueError, match="port"):
        Settings()
