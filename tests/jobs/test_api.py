"""Jobs over HTTP: asked for, refused, cancelled, listed. Their results: test_results.py."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.columns import now
from app.db.models import Dataset, DatasetStatus, Job, JobKind, JobState
from app.db.session import Database
from app.http import pagination as paging
from app.jobs import training
from app.jobs.plan import this_machine
from app.main import create_app
from app.settings import Settings
from app.storage.store import Storage
from sapnet.config.estimate import Gpu
from tests.sam_file import sam2_folder, sam_file
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

from .answers import pointers, problem

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
TRUTH = {
    "images": [{"id": 12, "file_name": "12.png", "width": 40, "height": 30}],
    "categories": [{"id": 0, "name": "cell"}],
    "annotations": [
        {"id": 501, "image_id": 12, "category_id": 0, "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]]}
    ],
}


@pytest.mark.slow
def test_the_whole_way(client: TestClient, dataset_id: str, new_worker: NewWorker) -> None:
    answer = client.post("/jobs/train", json={"dataset_id": dataset_id, "seed": 5})
    assert answer.status_code == 202
    created = answer.json()
    assert created == {"id": created["id"], "state": "queued"}
    assert answer.headers["location"] == f"/jobs/{created['id']}"
    execute(created["id"], new_worker())
    job = client.get(answer.headers["location"]).json()
    assert job["state"] == "succeeded_with_warnings"
    assert job["progress"] == 1.0
    assert job["warnings"] == ["weights are random"]
    assert job["losses"] == {"psm": 0.25}
    assert (job["method"], job["preset"], job["seed"]) == ("sapnet++", "cpu", 5)
    assert job["preset_reasons"] == ["2 cores and no GPU.", "It is fake."]
    assert job["finished_at"] > job["created_at"]
    assert (job["error"], job["reason"]) == (None, "warnings")
    metrics = client.get(f"/jobs/{job['id']}/metrics").json()
    assert metrics["seconds"] == {"train": 1.0}
    assert metrics["peak_memory_mb"] == 1
    assert metrics["pseudo_masks"] is None
    assert client.get(f"/jobs/{job['id']}/report").json()["peak_memory_mb"] == 1
    model = client.get(f"/models/{job['model_id']}").json()
    assert model["categories"] == [{"id": 0, "name": "cell"}, {"id": 7, "name": "dust"}]
    assert model["meta"] == {"classes": ["cell", "dust"], "seed": 5}
    (listed,) = client.get("/models").json()["models"]
    assert (listed["id"], listed["dataset_id"]) == (job["model_id"], dataset_id)
    assert listed["validation"] is None


@pytest.mark.slow
def test_a_job_names_everything_that_is_wrong_with_it(client: TestClient, dataset_id: str) -> None:
    body = {
        "dataset_id": dataset_id,
        "method": "sapnet+",
        "preset": "gpus",
        "overrides": {"train.epoch": 6, "train.epochs": 0, "a/b": 1, "train.batch_size": 2},
        "truth": {**TRUTH, "annotations": [{"id": 1}]},
    }
    answer = client.post("/jobs/train", json=body)
    found = pointers(answer)
    assert found[:5] == [
        "/method",
        "/preset",
        "/overrides/train.epoch",
        "/overrides/train.epochs",
        "/overrides/a~1b",
    ]
    assert found[5:]
    assert all(p.startswith("/truth/annotations/0") for p in found[5:])
    assert "train.epochs" in answer.json()["errors"][2]["detail"]
    assert client.get("/jobs").json() == {"jobs": [], "next": None}


@pytest.mark.slow
def test_a_dry_run_says_how_long_it_takes_and_stores_nothing(
    client: TestClient, dataset_id: str, new_worker: NewWorker
) -> None:
    body = {"dataset_id": dataset_id, "preset": "demo", "overrides": {"train.epochs": 3}}
    headers = {"Idempotency-Key": "one"}
    answer = client.post("/jobs/train?dry_run=true", json=body, headers=headers)
    assert answer.status_code == 200
    plan = answer.json()
    assert plan["preset"] == "demo"
    told = plan["estimate"]
    assert told["low"] < told["total"] < told["high"]
    assert sum(told["seconds"].values()) == pytest.approx(told["total"])
    assert "this machine's speed" in told["basis"]
    assert client.get("/jobs").json()["jobs"] == []
    longer = {**body, "overrides": {"train.epochs": 300}}
    more = client.post("/jobs/train?dry_run=true", json=longer).json()
    assert more["estimate"]["total"] > told["total"]
    wrong = {**body, "method": "sapnet+", "truth": {**TRUTH, "annotations": [{"id": 1}]}}
    refused = client.post("/jobs/train?dry_run=true", json=wrong)
    assert pointers(refused) == pointers(client.post("/jobs/train", json=wrong))
    problem(client.post("/jobs/train?dry_run=true", json={"dataset_id": "0" * 32}), 404)


@pytest.mark.slow
def test_a_dry_run_says_which_preset_it_chooses_and_why(
    client: TestClient, dataset_id: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(**wishes: Any) -> Any:
        body = {"dataset_id": dataset_id, **wishes}
        return client.post("/jobs/train?dry_run=true", json=body).json()

    monkeypatch.setattr("app.jobs.plan.largest_gpu", lambda: None)
    chosen = plan()
    assert chosen["preset"] == "demo"
    assert "2 images, 3 objects." in chosen["reasons"]
    assert plan(preset="demo")["reasons"] == []
    assert plan(preset="demo")["estimate"]["seconds"] == chosen["estimate"]["seconds"]
    gpu = Gpu("GeForce", 12 << 30)
    monkeypatch.setattr("app.jobs.plan.largest_gpu", lambda: gpu)
    assert plan()["preset"] == "gpu"
    assert this_machine(settings).gpu == gpu
    assert this_machine(settings.model_copy(update={"devices": "cpu,cpu"})).gpu is None
    queued = client.post("/jobs/train", json={"dataset_id": dataset_id}).json()["id"]
    job = client.get(f"/jobs/{queued}").json()
    assert (job["preset"], job["preset_reasons"]) == ("auto", None)  # the trainer chooses


@pytest.mark.slow
def test_a_dry_run_goes_by_trainings_that_are_finished(
    client: TestClient, dataset_id: str, new_job: NewJob, database: Database
) -> None:
    """The more seconds the last one took, the longer the next one will."""
    body = {"dataset_id": dataset_id, "preset": "cpu", "proposals": "hierarchy"}

    def total() -> float:
        plan = client.post("/jobs/train?dry_run=true", json=body).json()
        found.append(plan["estimate"]["basis"])
        return float(plan["estimate"]["total"])

    found: list[str] = []
    config = training.resolve_config("sapnet++", "cpu").to_dict()
    proposals = {"settings": {"kind": "hierarchy"}}
    reports = [
        {"seconds": {"train": seconds}, "config": config, "proposals": proposals}
        for seconds in (5_000.0, 50_000.0)
    ]
    totals = []
    for report in [*reports, {}, {"seconds": {"train": 1e9}, "config": {"train": 3}}]:
        new_job(state=JobState.SUCCEEDED, report=report)
        totals.append(total())
    assert totals[1] == pytest.approx(5.5 * totals[0], rel=0.01)
    assert totals[1:] == [totals[1]] * 3  # the others say nothing
    assert found[-1] == "2 finished trainings with this preset"


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "kind"), [(None, "hierarchy+prompter"), ("sam", "sam")])
def test_settings_are_checked_as_the_run_resolves_them(
    client: TestClient,
    dataset_id: str,
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    kind: str,
) -> None:
    """Presets with a teacher weigh its figures by the kind of proposals."""
    resolve, seen = training.resolve_config, []

    def watched(*given: Any) -> Any:
        seen.append(given)
        return resolve(*given)

    monkeypatch.setattr(training, "resolve_config", watched)
    body = {"dataset_id": dataset_id, "overrides": {"train.epochs": 2}, "proposals": asked}
    body["preset"] = "cpu"
    assert client.post("/jobs/train", json=body).status_code == 202
    assert seen[-1] == ("sapnet++", "cpu", {"train.epochs": 2}, kind)
    assert {given[-1] for given in seen} == {kind}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"seed": -1}, "/seed"),
        ({"seed": 1.5}, "/seed"),
        ({"sed": 1}, "/sed"),
        ({"proposals": "magic"}, "/proposals"),
        ({"proposals": {"kind": "sam", "checkpoint": "/etc/passwd"}}, "/proposals/checkpoint"),
        ({"proposals": {"kind": "given", "document": "/etc/passwd"}}, "/proposals/document"),
        ({"proposals": "given"}, "/proposals/document"),
        ({"proposals": {}}, "/proposals"),
        ({"overrides": [1]}, "/overrides"),
        ({"dataset_id": 3}, "/dataset_id"),
    ],
)
def test_a_job_that_makes_no_sense(
    client: TestClient, dataset_id: str, change: dict[str, Any], pointer: str
) -> None:
    answer = client.post("/jobs/train", json={"dataset_id": dataset_id, **change})
    assert set(pointers(answer)) == {pointer}


@pytest.mark.slow
def test_sam_checkpoints_are_chosen_by_name_and_checked_by_type(
    settings: Settings, database: Database, dataset_id: str, tmp_path: Path
) -> None:
    cells = sam_file(tmp_path / "cells.pt", 768, 12, entry="model_state", prefix="sam.")
    (tmp_path / "words.pth").write_bytes(b"words")
    named = {
        "large": sam_file(tmp_path / "l.pth", 1024, 24),
        "cells": cells,
        "words": tmp_path / "words.pth",
        "elsewhere": tmp_path / "on another machine.pth",
        "two": sam2_folder(tmp_path / "two", 112, [2, 3, 16, 3]),
    }
    client = TestClient(create_app(settings.model_copy(update={"sam_checkpoints": named})))
    body = {"dataset_id": dataset_id}

    def post(**proposals: str) -> Any:
        return client.post("/jobs/train", json={**body, "proposals": {"kind": "sam", **proposals}})

    for good in (
        {},
        {"model_type": "vit_l"},
        {"checkpoint": "cells"},
        {"checkpoint": "cells", "model_type": "vit_b"},
        {"checkpoint": "elsewhere", "model_type": "vit_h"},
        {"kind": "sam2"},
        {"kind": "sam2", "checkpoint": "two", "model_type": "base-plus"},
    ):
        assert post(**good).status_code == 202, good
    for bad, pointer, words in (
        ({"model_type": "vit_b"}, "model_type", ("'vit_b'", "'large' is vit_l")),
        ({"checkpoint": "cells", "model_type": "vit_h"}, "model_type", ("'vit_h'", "is vit_b")),
        ({"checkpoint": "fungi"}, "checkpoint", ("'fungi'", "large, cells, words")),
        ({"checkpoint": str(cells)}, "checkpoint", ("large, cells, words",)),
        ({"checkpoint": "words"}, "checkpoint", ("'words' is no checkpoint of SAM",)),
        ({"checkpoint": "two"}, "kind", ("'two' is a SAM 2", "'sam2'")),
        ({"kind": "sam2", "model_type": "tiny"}, "model_type", ("'tiny'", "'two' is base-plus")),
        ({"kind": "sam2", "checkpoint": "cells"}, "kind", ("'cells' is a SAM:", "'sam'")),
    ):
        answer = post(**bad)
        assert pointers(answer) == [f"/proposals/{pointer}"]
        (issue,) = answer.json()["errors"]
        assert all(word in issue["detail"] for word in words), issue
        assert "\n" not in issue["detail"]
    assert str(tmp_path) not in post(checkpoint="words", model_type="vit_b").text


@pytest.mark.slow
def test_a_job_of_no_dataset(client: TestClient, database: Database, dataset_id: str) -> None:
    problem(client.post("/jobs/train", json={"dataset_id": "none"}), 404)
    with database.begin() as session:
        session.execute(update(Dataset).values(status=DatasetStatus.IMPORTING))
    problem(client.post("/jobs/train", json={"dataset_id": dataset_id}), 409)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proposals", "kind"),
    [
        ("hierarchy", "hierarchy"),
        ({"kind": "hierarchy"}, "hierarchy"),
        (None, "hierarchy+prompter"),
    ],
)
def test_proposals_may_be_a_word(
    client: TestClient, dataset_id: str, database: Database, proposals: Any, kind: str
) -> None:
    body = {"dataset_id": dataset_id, "proposals": proposals}
    job_id = client.post("/jobs/train", json=body).json()["id"]
    with database.read() as session:
        assert session.get_one(Job, job_id).request["proposals"] == {"kind": kind}


@pytest.mark.slow
def test_truth_is_stored_with_the_job(
    client: TestClient, dataset_id: str, database: Database, storage: Storage
) -> None:
    body = {"dataset_id": dataset_id, "truth": TRUTH}
    job_id = client.post("/jobs/train", json=body).json()["id"]
    with database.read() as session:
        sha = session.get_one(Job, job_id).truth_sha
    assert json.loads(storage.read(str(sha))) == TRUTH


@pytest.mark.slow
def test_idempotency_key(client: TestClient, dataset_id: str) -> None:
    body = {"dataset_id": dataset_id}
    key = {"Idempotency-Key": "k1"}
    first = client.post("/jobs/train", json=body, headers=key).json()
    assert client.post("/jobs/train", json=body, headers=key).json() == first
    assert client.post("/jobs/train", json=body).json()["id"] != first["id"]
    changed = client.post("/jobs/train", json={**body, "seed": 1}, headers=key)
    assert pointers(changed) == ["/Idempotency-Key"]


@pytest.mark.slow
def test_cancel(
    client: TestClient, new_job: NewJob, database: Database, done: str, settings: Settings
) -> None:
    queued = new_job()
    answer = client.post(f"/jobs/{queued}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert client.get(f"/jobs/{queued}").json()["finished_at"] is not None
    lease = now() + timedelta(seconds=60)
    running = new_job(state=JobState.RUNNING, owner="w", attempt=1, lease_until=lease)
    for _ in range(2):  # asking twice is asking once
        answer = client.post(f"/jobs/{running}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    over = problem(client.post(f"/jobs/{done}/cancel"), 409)
    assert over["state"] == "succeeded_with_warnings"
    problem(client.post("/jobs/none/cancel"), 404)


@pytest.mark.slow
def test_jobs_page_by_cursor(client: TestClient, new_job: NewJob, dataset_id: str) -> None:
    ids = [new_job() for _ in range(5)][::-1]
    seen, url = [], "/jobs?limit=2"
    while url:
        answer = client.get(url)
        seen += [job["id"] for job in answer.json()["jobs"]]
        url = answer.links["next"]["url"] if "next" in answer.links else ""
        assert bool(url) == bool(answer.json()["next"])
    assert seen == sorted(ids, reverse=True)
    assert client.get("/jobs", params={"state": "running"}).json()["jobs"] == []
    assert len(client.get("/jobs", params={"dataset_id": dataset_id}).json()["jobs"]) == 5
    assert client.get("/jobs", params={"dataset_id": "none"}).json()["jobs"] == []
    assert pointers(client.get("/jobs?cursor=nonsense")) == ["/cursor"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["\ud800", "\x00", "é", ""])
def test_texts_that_no_database_takes(client: TestClient, done: str, name: str) -> None:
    body = json.dumps({"dataset_id": name}).encode()
    headers = {"content-type": "application/json"}
    answer = client.post("/jobs/train", content=body, headers=headers)
    assert "There is no data set" in problem(answer, 404)["detail"]
    wanted = {"dataset_id": name.replace("\ud800", "\x00")}
    assert client.get("/jobs", params=wanted).json() == {"jobs": [], "next": None}
    method = json.dumps({"dataset_id": "x" * 32, "method": name}).encode()
    problem(client.post("/jobs/train", content=method, headers=headers), 404)


@pytest.mark.slow
def test_what_a_request_said_comes_back_readable(client: TestClient, dataset_id: str) -> None:
    body = json.dumps({"dataset_id": dataset_id, "method": "a\ud800ä"}).encode()
    answer = client.post("/jobs/train", content=body, headers={"content-type": "application/json"})
    assert pointers(answer) == ["/method"]
    assert "ä" in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/metrics", "/models/{}", "/datasets/{}"])
@pytest.mark.parametrize("name", ["%00", "%ff", "%20"])
def test_ids_that_no_database_takes(client: TestClient, path: str, name: str) -> None:
    problem(client.get(path.format(name)), 404)
    problem(client.post(f"/jobs/{name}/cancel"), 404)


@pytest.mark.slow
@pytest.mark.parametrize("key", [2**63, -(2**64), 10**30, "a\x00", "\ud800", "", True, None, 1.5])
def test_cursors_that_were_never_given_out(client: TestClient, done: str, key: object) -> None:
    cursor = paging.encode(key)  # type: ignore[arg-type]
    for path in (f"/jobs/{done}/pseudo-masks", "/jobs", "/models", "/datasets"):
        answer = client.get(path, params={"cursor": cursor})
        assert pointers(answer) == ["/cursor"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_it_is_json(
    client: TestClient, dataset_id: str, kind: str | None
) -> None:
    body = json.dumps({"dataset_id": dataset_id}).encode()
    headers = {"content-type": kind} if kind else {}
    answer = client.post("/jobs/train", content=body, headers=headers)
    assert "application/json" in problem(answer, 415)["detail"]


@pytest.mark.slow
def test_kinds_of_jobs(client: TestClient, new_job: NewJob) -> None:
    """Every kind that a job may have is described, with a path that is filled in from the job."""
    kinds = {kind["kind"]: kind for kind in client.get("/jobs/kinds").json()["kinds"]}
    assert set(kinds) == set(JobKind)
    for kind, about in kinds.items():
        job = client.get(f"/jobs/{new_job(kind=kind, model_id='0' * 32)}").json()
        assert job["kind"] == kind
        assert re.fullmatch(r"(/[\w-]+){2,3}", about["result"].format(**job))
        assert about["stages"]
        assert all(set(stage) == {"name", "label", "optional"} for stage in about["stages"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in JobKind if kind is not JobKind.TRAIN], ids=str)
def test_what_is_no_training_names_its_result(
    client: TestClient, new_job: NewJob, kind: JobKind
) -> None:
    job = new_job(kind=kind, state=JobState.SUCCEEDED, model_id="0" * 32)
    refused = problem(client.get(f"/jobs/{job}/metrics"), 409)
    about = next(k for k in client.get("/jobs/kinds").json()["kinds"] if k["kind"] == kind)
    whole = client.get(f"/jobs/{job}").json()
    assert about["result"].format(**whole) in refused["detail"]
