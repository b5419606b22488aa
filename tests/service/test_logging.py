"""Logs as JSON lines with the ids of request and job; traces reach a collector where one is set."""

import http.server
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from app.main import create_app
from app.observability import logging as logs
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The lines on stderr since the last call, each of which must be JSON."""
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.fixture
def client(
    make_settings: Callable[..., Settings], lines: Callable[[], Any]
) -> Iterator[TestClient]:
    app = create_app(make_settings(log_json=True))

    @app.get("/bug")
    def bug() -> None:
        structlog.get_logger().info("before the fall")
        raise KeyError("x")

    with TestClient(app, raise_server_exceptions=False) as client:
        lines()
        yield client
    logs.configure("info", False)


@pytest.mark.slow
def test_a_request_bears_its_id_everywhere(client: TestClient, lines: Callable[[], Any]) -> None:
    answer = client.get("/datasets/nobody?secret=s3cret", headers={"X-Request-ID": "abc-1.2:3"})
    assert answer.headers["x-request-id"] == "abc-1.2:3"
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": "abc-1.2:3",
        "method": "GET",
        "path": "/datasets/nobody",
        "status": 404,
    }


@pytest.mark.slow
@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "é".encode(), b"\xff"])
def test_an_unsound_id_is_replaced(client: TestClient, sent: str | bytes | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    given = {client.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(given) == 2
    assert all(len(request_id) == 16 for request_id in given)


def test_a_failure_is_logged_with_its_id(client: TestClient, lines: Callable[[], Any]) -> None:
    answer = client.get("/bug", headers={"X-Request-ID": "r1"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "r1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = lines()
    assert [line["event"] for line in found] == ["before the fall", "request"]
    assert {line["request_id"] for line in found} == {"r1"}
    assert found[-1]["status"] == 500
    assert client.head("/bug").headers["x-request-id"] != "r1"


@pytest.mark.slow
def test_probes_are_not_worth_a_line(client: TestClient, lines: Callable[[], Any]) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    assert lines() == []


def test_what_libraries_log_comes_out_the_same_way(
    client: TestClient, lines: Callable[[], Any]
) -> None:
    structlog.contextvars.bind_contextvars(job="j1")
    try:
        try:
            raise KeyError("why")
        except KeyError:
            logging.getLogger("uvicorn.error").exception("it %s", "fell")
        logging.getLogger("sqlalchemy.engine").info("not asked for")
    finally:
        structlog.contextvars.clear_contextvars()
    (line,) = lines()
    assert (line["event"], line["level"], line["job"]) == ("it fell", "error", "j1")
    assert line["logger"] == "uvicorn.error"
    assert "KeyError: 'why'" in line["exception"]


def test_configuring_again_writes_no_line_twice(lines: Callable[[], Any]) -> None:
    for _ in range(3):
        logs.configure("info", True)
    logging.getLogger("celery").info("once")
    assert [line["event"] for line in lines()] == ["once"]
    logs.configure("info", False)


def run(code: str, **settings: str) -> str:
    env = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_no_tracing_is_loaded_without_the_setting(settings: Settings) -> None:
    code = (
        "import sys; from app.main import create_app; create_app(); import worker.main;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk.trace',"
        "'opentelemetry.exporter', 'opentelemetry.instrumentation'))])"
    )
    assert run(code, SAPNET_DATA_DIR=str(settings.data_dir)).strip() == "[]"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP endpoint, and the spans that came."""
    spans: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(s for scope in resource.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
        server.shutdown()
        thread.join()


TRACED = """
from fastapi.testclient import TestClient
from opentelemetry import trace
from app.main import create_app
with TestClient(create_app()) as client:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert client.get("/datasets/nobody", headers={"traceparent": parent}).status_code == 404
trace.get_tracer_provider().force_flush()
"""


@pytest.mark.slow
def test_a_request_is_traced(settings: Settings, collector: tuple[str, list[Any]]) -> None:
    url, spans = collector
    output = run(
        TRACED,
        SAPNET_DATA_DIR=str(settings.data_dir),
        SAPNET_OTEL_ENDPOINT=url,
        SAPNET_LOG_JSON="true",
    )
    ours = "0af7651916cd43dd8448eb211c80319c"
    found = {span.name for span in spans if span.trace_id.hex() == ours}
    assert "GET /datasets/{dataset_id}" in found
    assert "SELECT" in found
    texts = [a.value.string_value for s in spans for a in s.attributes if a.key == "db.query.text"]
    assert any("FROM dataset" in text for text in texts)
    assert "nobody" not in "".join(texts)
    line = next(json.loads(text) for text in output.splitlines() if '"request"' in text)
    assert line["trace_id"] == ours


def test_tracing_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.observability import tracing

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = Settings(_env_file=None, otel_endpoint="http://x")  # type: ignore[call-arg]
    with pytest.raises(ModuleNotFoundError, match="SDK is not installed"):
        tracing.start(settings, "api")
