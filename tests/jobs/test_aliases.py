"""Names for models: moved by compare-and-set, each owner's own, good wherever a model is named."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.auth import keys
from app.auth.keys import Scope
from app.db.models import Dataset, JobState, Model
from app.db.session import Database
from app.storage.store import Storage

pytestmark = pytest.mark.both_stacks

MAKE = {"If-None-Match": "*"}


@pytest.fixture
def new_model(new_job: Callable[..., str], database: Database, storage: Storage) -> Any:
    def new() -> str:
        model = Model(
            job_id=new_job(state=JobState.SUCCEEDED),
            name="cells",
            categories=[{"id": 0, "name": "cell"}],
            sha256=storage.put_bytes(b"weights"),
            weights_sha=storage.put_bytes(b"safe weights"),
            size=7,
            meta={},
        )
        with database.begin() as session:
            session.add(model)
        return model.id

    return new


def refused(answer: Any, status: int) -> dict[str, Any]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


def put(client: TestClient, name: str, model: str, **headers: str) -> Any:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return client.put(f"/models/aliases/{name}", json={"model": model}, headers=named)


@pytest.mark.slow
def test_made_moved_and_removed(client: TestClient, new_model: Callable[[], str]) -> None:
    first, second = new_model(), new_model()
    made = put(client, "production", first, If_None_Match="*")
    assert made.status_code == 201, made.text
    assert (made.json()["name"], made.json()["model_id"]) == ("production", first)
    assert client.get("/models/production").json()["id"] == first
    moved = put(client, "production", second, If_Match=made.headers["etag"])
    assert (moved.status_code, moved.json()["model_id"]) == (200, second)
    assert client.get("/models/production").json()["id"] == second
    seen = client.get("/models/aliases/production")
    assert seen.headers["etag"] == moved.headers["etag"] != made.headers["etag"]
    assert client.get("/models/aliases").json() == {"aliases": [moved.json()], "next": None}
    url = "/models/aliases/production"
    refused(client.delete(url), 428)
    refused(client.delete(url, headers={"If-Match": made.headers["etag"]}), 412)
    assert client.delete(url, headers={"If-Match": seen.headers["etag"]}).status_code == 204
    for gone in (client.get(url), client.get("/models/production")):
        refused(gone, 404)
    again = put(client, "production", first, If_None_Match="*")
    assert again.headers["etag"] not in (made.headers["etag"], moved.headers["etag"])


@pytest.mark.slow
def test_preconditions(client: TestClient, new_model: Callable[[], str]) -> None:
    model = new_model()
    refused(put(client, "best", model), 428)
    refused(put(client, "best", model, If_Match='"1"'), 412)
    refused(put(client, "best", model, If_Match="*"), 412)
    refused(put(client, "best", model, If_None_Match='"1"'), 422)
    tag = put(client, "best", model, If_None_Match="*").headers["etag"]
    refused(put(client, "best", model, If_None_Match="*", If_Match=tag), 422)
    assert refused(put(client, "best", model, If_None_Match="*"), 412)["revision"] == int(tag[1:-1])
    assert refused(put(client, "best", model), 428)
    refused(put(client, "best", model, If_Match='"1"'), 412)
    assert put(client, "best", model, If_Match="*").status_code == 200
    refused(put(client, "best", "none", If_Match="*"), 404)


@pytest.mark.slow
@pytest.mark.parametrize("new", [True, False])
def test_of_many_at_once_one_wins(
    client: TestClient, new_model: Callable[[], str], new: bool
) -> None:
    models = [new_model() for _ in range(6)]
    headers = {"If_None_Match": "*"}
    if not new:
        headers = {"If_Match": put(client, "best", models[0], If_None_Match="*").headers["etag"]}
    answers: list[Any] = []
    together = threading.Barrier(len(models))

    def move(model: str) -> None:
        together.wait()
        answers.append(put(client, "best", model, **headers))

    threads = [threading.Thread(target=move, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [a for a in answers if a.status_code in (200, 201)]
    assert [a.status_code for a in answers if a is not won] == [412] * 5
    assert client.get("/models/aliases/best").json() == won.json()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["aliases", "0" * 32, "aBcDef01" * 4, "1st", "a/b", "a b", "ä", "x" * 65, "-", "%00"]
)
def test_what_can_be_no_name(client: TestClient, new_model: Callable[[], str], name: str) -> None:
    """A model's id above all: what a script asks for by id must never be another one."""
    answer = put(client, name, new_model(), If_None_Match="*")
    assert answer.status_code in (404, 405) if "/" in name else refused(answer, 422)
    assert client.get("/models/aliases").json()["aliases"] == []


@pytest.mark.slow
def test_wherever_a_model_is_named(client: TestClient, new_model: Callable[[], str]) -> None:
    model, other = new_model(), new_model()
    put(client, "best", model, If_None_Match="*")
    for path in ("", "/checkpoint", "/weights"):
        by_id, by_name = client.get(f"/models/{model}{path}"), client.get(f"/models/best{path}")
        assert by_name.content == by_id.content
    assert "immutable" in by_id.headers["cache-control"]
    assert by_name.headers["cache-control"] == "no-cache"  # it may name another one tomorrow
    assert by_name.headers["etag"] == by_id.headers["etag"]
    chained = put(client, "champion", "best", If_None_Match="*")
    assert chained.json()["model_id"] == model
    put(client, "best", other, If_Match="*")
    assert client.get("/models/aliases/champion").json()["model_id"] == model
    refused(client.get("/models/nobody"), 404)


@pytest.mark.slow
def test_pages(client: TestClient, new_model: Callable[[], str]) -> None:
    model = new_model()
    for name in ("c", "a", "b"):
        put(client, name, model, If_None_Match="*")
    first = client.get("/models/aliases", params={"limit": 2})
    assert [a["name"] for a in first.json()["aliases"]] == ["c", "a"]
    rest = client.get(first.links["next"]["url"]).json()
    assert ([a["name"] for a in rest["aliases"]], rest["next"]) == (["b"], None)


@pytest.mark.slow
def test_each_owner_has_names_of_his_own(
    client: TestClient, new_model: Callable[[], str], database: Database
) -> None:
    """Ann's data; the admin sees it, Bob does not."""
    model = new_model()
    with database.begin() as session:
        session.execute(update(Dataset).values(owner="ann"))
        made = {
            name: keys.create(session, name, scope)[0]
            for name, scope in [("ann", Scope.WRITE), ("bob", Scope.WRITE), ("root", Scope.ADMIN)]
        }
    by = {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}
    refused(put(client, "best", model, If_None_Match="*", **by["bob"]), 404)
    for name in ("ann", "root"):
        assert put(client, "best", model, If_None_Match="*", **by[name]).status_code == 201
    tag = client.get("/models/aliases/best", headers=by["ann"]).headers["etag"]
    for path in ("aliases/best", "best", "best/weights"):
        refused(client.get(f"/models/{path}", headers=by["bob"]), 404)
        assert client.get(f"/models/{path}", headers=by["root"]).status_code == 200
    refused(client.delete("/models/aliases/best", headers={"If-Match": tag, **by["bob"]}), 404)
    assert client.get("/models/aliases", headers=by["bob"]).json()["aliases"] == []
    removed = client.delete("/models/aliases/best", headers={"If-Match": "*", **by["root"]})
    assert removed.status_code == 204
    assert client.get("/models/aliases/best", headers=by["ann"]).headers["etag"] == tag


@pytest.mark.slow
def test_what_has_a_name_is_not_deleted(
    client: TestClient, new_model: Callable[[], str], dataset_id: str, database: Database
) -> None:
    """Not by its owner either, where the name is somebody else's."""
    model = new_model()
    with database.begin() as session:
        session.execute(update(Dataset).values(owner="ann"))
        ann = keys.create(session, "ann", Scope.WRITE)[0]
        root = keys.create(session, "root", Scope.ADMIN)[0]
    by_ann, by_root = ({"Authorization": f"Bearer {key}"} for key in (ann, root))
    put(client, "production", model, If_None_Match="*", **by_root)
    url = f"/datasets/{dataset_id}?force=true"
    problem = refused(client.delete(url, headers=by_ann), 409)
    assert problem["aliases"] == ["production"]
    assert "production" in problem["detail"]
    client.delete("/models/aliases/production", headers={"If-Match": "*", **by_root})
    assert client.delete(url, headers=by_ann).status_code == 204
    refused(client.get(f"/models/{model}", headers=by_ann), 404)
