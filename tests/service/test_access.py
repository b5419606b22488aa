"""What a route asks for is said at the route; what says nothing is not open."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from app.auth import keys
from app.auth.access import AccessTable, access, open_to_all
from app.auth.keys import Scope
from app.main import create_app
from app.settings import Settings


def answer() -> dict[str, str]:
    return {"made": "it"}


@pytest.fixture
def app(make_settings: Callable[..., Settings]) -> FastAPI:
    """With routes that somebody adds: at the app, in a router within a router, and mounted."""
    app = create_app(make_settings(max_json_bytes=1_000, max_image_bytes=3_000))
    inner = APIRouter(prefix="/inner")
    inner.add_api_route("/said-nothing", _copy(), methods=["GET", "POST"])
    inner.add_api_route("/open", open_to_all(_copy()), methods=["GET", "POST"])
    outer = APIRouter(prefix="/outer")
    outer.add_api_route("/{name}/read", access(scope=Scope.READ)(_copy()), methods=["POST"])
    larger = access(scope=Scope.READ, body=lambda settings: settings.max_image_bytes)
    outer.add_api_route("/{name}/large", larger(_copy()), methods=["POST"])
    outer.add_api_route("/{name}", access(scope=Scope.ADMIN)(_copy()), methods=["GET"])
    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/closed-files", PlainTextResponse("secret"))
    app.mount("/open-files", open_to_all(PlainTextResponse("free")))
    return app


def _copy() -> Callable[[], dict[str, str]]:
    return lambda: answer()


def status_of(
    client: TestClient, method: str, path: str, key: str | None, body: bytes = b""
) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return int(client.request(method, path, headers=headers, content=body).status_code)


@pytest.mark.slow
def test_what_routes_say_holds_for_them_alone(app: FastAPI) -> None:
    with app.state.database.begin() as session:
        made = {scope: keys.create(session, "ann", scope)[0] for scope in Scope}
    none, read, write, admin = None, made[Scope.READ], made[Scope.WRITE], made[Scope.ADMIN]
    client = TestClient(app)

    def statuses(method: str, path: str) -> list[int]:
        return [status_of(client, method, path, key) for key in (none, read, write, admin)]

    assert statuses("GET", "/outer/inner/said-nothing") == [401, 200, 200, 200]
    assert statuses("POST", "/outer/inner/said-nothing") == [401, 403, 200, 200]
    assert statuses("GET", "/outer/inner/open") == [200, 200, 200, 200]
    assert statuses("POST", "/outer/inner/open") == [200, 200, 200, 200]
    assert statuses("DELETE", "/outer/inner/open") == [405, 405, 405, 405]
    assert statuses("POST", "/outer/x/read") == [401, 200, 200, 200]
    assert statuses("DELETE", "/outer/x/read") == [401, 403, 405, 405]
    assert statuses("GET", "/outer/x") == [401, 403, 403, 200]
    assert statuses("GET", "/nowhere/open") == [401, 404, 404, 404]
    assert statuses("GET", "/outer/inner/open/more") == [401, 404, 404, 404]
    assert statuses("GET", "/closed-files/x") == [401, 200, 200, 200]
    assert statuses("GET", "/open-files/x") == [200, 200, 200, 200]


@pytest.mark.slow
def test_how_large_a_body_may_be(app: FastAPI) -> None:
    client = TestClient(app)
    for path, limit in (("/outer/x/large", 3_000), ("/outer/x/read", 1_000), ("/nowhere", 1_000)):
        assert status_of(client, "POST", path, None, b" " * (limit + 1)) == 413
        assert status_of(client, "POST", path, None, b" " * limit) != 413


@pytest.mark.slow
def test_what_is_open_and_what_is_read_by_posting_is_known(settings: Settings) -> None:
    """Whoever opens one more route says so here as well."""
    app = create_app(settings)
    table = AccessTable(app.routes)
    operations = [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    open_ = {at for at in operations if table.of(*at).scope is None}
    assert open_ == {("GET", p) for p in ("/", "/healthz", "/readyz", "/problems/{slug}")}
    for path in ("/docs", "/openapi.json", "/web/main.js", "/web/swagger-ui/swagger-ui.css"):
        assert table.of("GET", path).scope is None
    unlike: set[Any] = {
        at
        for at in operations
        if at not in open_ and (table.of(*at).scope is Scope.READ) != (at[0] in ("GET", "OPTIONS"))
    }
    assert unlike == {
        ("POST", "/predict"),
        ("POST", "/masks/{mask_id}/suggest"),
        ("GET", "/metrics"),
    }
    assert table.of("GET", "/metrics").scope is Scope.METRICS
    large = {at for at in operations if table.of(*at).body(settings) > settings.max_json_bytes}
    assert large == {
        ("POST", "/predict"),
        ("POST", "/datasets"),
        ("POST", "/models"),
        ("PATCH", "/uploads/{upload_id}"),
        ("POST", "/uploads/{upload_id}"),
    }
