"""The real trainer behind the real service: a whole job, and jobs broken off in mid-training."""

import io
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from sqlalchemy import update

from app.db.models import Image, Job, JobState, PseudoMask
from app.db.session import Database
from app.jobs import events
from app.settings import Settings
from sapnet.data.synthetic import Scenes, make_scenes
from sapnet_client import Client

pytestmark = pytest.mark.service

Row = Callable[[str], Job]
Until = Callable[..., None]
Expire = Callable[[str], None]
Start = Callable[..., subprocess.Popen[bytes]]

REQUEST = {
    "preset": "demo",
    "seed": 7,
    "overrides": {
        "train.epochs": 12,
        "train.batch_size": 2,
        "train.checkpoint_every": 4,
        "train.warmup_steps": 4,
        "teacher.epochs": 1,
        "teacher.min_steps": 6,
        "data.short_sides": [96],
        "data.max_long_side": 128,
    },
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return make_scenes(tmp_path_factory.mktemp("scenes"), 6, size=(96, 112), seed=3)


@pytest.fixture
def asking(client: TestClient) -> Client:
    return Client(http=client, progress=False)


@pytest.fixture
def posted(asking: Client, scenes: Scenes) -> str:
    """The id of the scenes as a data set, with their truth."""
    return asking.create_dataset(scenes.images, scenes.points, truth=scenes.truth).id


@pytest.fixture
def train(asking: Client, posted: str) -> Callable[[], str]:
    return lambda: asking.train(posted, **REQUEST).id


@pytest.fixture
def start_real(start: Start, settings: Settings) -> Callable[[], subprocess.Popen[bytes]]:
    """A worker with the trainer that it has by default; one thread, so that figures are equal."""
    command = json.dumps(Settings.model_fields["trainer_command"].default)
    environment = {"SAPNET_TRAINER_COMMAND": command, "OMP_NUM_THREADS": "1"}
    return lambda: start("worker.main", **environment)


def trainer_of(worker: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(children[0])


def over(job_row: Row, job_id: str) -> Callable[[], bool]:
    return lambda: job_row(job_id).finished_at is not None


def in_training(job_row: Row, job_id: str) -> Callable[[], bool]:
    def reached() -> bool:
        job = job_row(job_id)
        assert job.stage in (None, "proposals", "teacher", "train"), "too late to break it off"
        return job.stage == "train" and (job.step or 0) >= 5

    return reached


def results(database: Database, job: Job) -> tuple[Any, list[tuple[Any, ...]]]:
    with database.read() as session:
        rows = session.query(PseudoMask).filter_by(job_id=job.id).order_by(PseudoMask.pk)
        masks = [(m.annotation_id, m.segmentation, m.quality, m.source) for m in rows]
    return job.metrics, masks


def test_a_job_broken_off_twice_gives_what_an_unbroken_one_gives(
    train: Callable[[], str],
    start_real: Callable[[], subprocess.Popen[bytes]],
    job_row: Row,
    until: Until,
    expire: Expire,
    database: Database,
    asking: Client,
    scenes: Scenes,
) -> None:
    unbroken, broken = train(), train()
    worker = start_real()
    until(over(job_row, unbroken), 120)
    first = job_row(unbroken)
    assert first.state in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_WARNINGS), first.error
    assert first.of is not None
    check_the_results(asking, first, scenes)

    until(in_training(job_row, broken), 120)
    os.kill(trainer_of(worker), signal.SIGKILL)
    until(lambda: job_row(broken).attempt == 2, 60)
    until(in_training(job_row, broken), 60)
    worker.kill()
    worker.wait()
    assert not over(job_row, broken)()
    expire(broken)
    start_real()
    until(over(job_row, broken), 120)
    second = job_row(broken)
    assert second.attempt == 3
    assert second.state is first.state, second.error
    assert results(database, second) == results(database, first)


def check_the_results(asking: Client, job: Job, scenes: Scenes) -> None:
    """Everything that a job has to show for itself, over HTTP."""
    points = json.loads(scenes.points.read_text())
    metrics = asking.metrics(job)
    assert metrics.pseudo_masks is not None
    assert metrics.proposals is not None
    assert 0 < metrics.pseudo_masks["miou_mask"] <= 1
    assert metrics.proposals["best_of_bag_miou_mask"] >= metrics.pseudo_masks["miou_mask"] / 2
    assert set(metrics.seconds) >= {"proposals", "train", "pseudo-masks"}
    assert metrics.proposal_generator == "hierarchy+prompter"
    ids = [mask.id for mask in asking.pseudo_masks(job)]
    assert ids == sorted(a["id"] for a in points["annotations"])
    assert PILImage.open(io.BytesIO(asking.gallery(job))).size > (100, 100)
    image = points["images"][0]
    known = asking.predict(job.model_id, image["id"], score=0)
    sent = asking.predict(job.model_id, scenes.images / image["file_name"], score=0)
    assert [replace(found, image_id=image["id"]) for found in sent] == known
    drawn = asking.overlay(job.model_id, image["id"], score=0)
    assert PILImage.open(io.BytesIO(drawn)).size == (112, 96)
    for result in known:
        assert result.segmentation.size == [96, 112]


def test_cancel_ends_within_ten_seconds(
    train: Callable[[], str],
    start_real: Callable[[], subprocess.Popen[bytes]],
    job_row: Row,
    until: Until,
    asking: Client,
    alive: Callable[[int], bool],
) -> None:
    job_id = train()
    worker = start_real()
    until(in_training(job_row, job_id), 60)
    trainer = trainer_of(worker)
    assert asking.cancel(job_id).state == "cancelling"
    until(lambda: job_row(job_id).state is JobState.CANCELLED)
    assert not alive(trainer)


def test_a_lost_image_is_set_aside_and_the_rest_is_delivered(
    client: TestClient,
    database: Database,
    posted: str,
    scenes: Scenes,
    start_real: Callable[[], subprocess.Popen[bytes]],
    job_row: Row,
    until: Until,
) -> None:
    points = json.loads(scenes.points.read_text())
    lost = points["images"][2]
    with database.begin() as session:
        gone = update(Image).where(Image.image_id == lost["id"])
        session.execute(gone.values(sha256="f" * 64))
    overrides = REQUEST["overrides"] | {"train.epochs": 2}
    body = {"dataset_id": posted, **REQUEST, "overrides": overrides}
    job_id = client.post("/jobs/train", json=body).raise_for_status().json()["id"]
    start_real()
    until(over(job_row, job_id), 120)
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.SUCCEEDED_WITH_WARNINGS, "images_set_aside")
    (entry,) = client.get(f"/jobs/{job_id}/report").json()["set_aside"]
    assert (entry["image_id"], entry["stage"]) == (lost["id"], "proposals")
    with database.read() as session:
        log = events.after(session, job_id, 0, 10_000)
    assert [e.data for e in log if e.type == "image_set_aside"] == [entry]
    masks = client.get(f"/jobs/{job_id}/pseudo-masks").json()["annotations"]
    rest = [a["id"] for a in points["annotations"] if a["image_id"] != lost["id"]]
    assert [mask["id"] for mask in masks] == sorted(rest)


def test_an_override_that_only_the_trainer_can_refuse(
    asking: Client,
    posted: str,
    start_real: Callable[[], subprocess.Popen[bytes]],
    job_row: Row,
    until: Until,
) -> None:
    proposals = {"kind": "hierarchy", "no_such_setting": 1}
    job_id = asking.train(posted, **REQUEST, proposals=proposals).id
    start_real()
    until(over(job_row, job_id), 60)
    job = job_row(job_id)
    assert (job.state, job.reason, job.attempt) == (JobState.FAILED, "invalid_config", 1)
    assert "no_such_setting" in str(job.error)


def test_the_other_images_are_labelled_reviewed_and_trained_on(
    asking: Client,
    client: TestClient,
    scenes: Scenes,
    start_real: Callable[[], subprocess.Popen[bytes]],
    job_row: Row,
    until: Until,
    tmp_path: Path,
) -> None:
    """Points on four of six images; the other two by the model, a rule, and one correction."""
    document = json.loads(scenes.points.read_text())
    ids = [image["id"] for image in document["images"]]
    annotated, others = ids[:4], set(ids[4:])
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in annotated]
    points = tmp_path / "points.json"
    points.write_text(json.dumps(document))
    dataset = asking.create_dataset(scenes.images, points).id
    loose = {"solo.score_threshold": 0.001, "solo.keep_threshold": 0.0, "solo.max_instances": 6}
    short = {"train.epochs": 4, "solo.nms_pre": 40, "refine.enabled": False, **loose}
    overrides = REQUEST["overrides"] | short  # type: ignore[operator]
    request = REQUEST | {"overrides": overrides, "proposals": "hierarchy"}
    first = asking.train(dataset, **request).id
    worker = start_real()
    until(over(job_row, first), 400)
    told = asking.job(first)
    assert any("2 of 6 images have no annotations" in warning for warning in told.warnings)
    answer = client.post("/jobs/label", json={"model": told.model_id, "score": 0})
    assert answer.status_code == 202, answer.text
    labelled = answer.json()["id"]
    until(over(job_row, labelled), 200)
    assert asking.job(labelled).state == "succeeded", asking.job(labelled)
    queue = list(asking.review(labelled))
    assert {mask.image_id for mask in queue} == others
    assert [mask.quality for mask in queue] == sorted(mask.quality for mask in queue)
    assert all(0 <= mask.quality <= 1 for mask in queue)
    assert {mask.source for mask in queue} == {"predicted"}
    best = queue[-1].quality
    rule = client.post(f"/jobs/{labelled}/review/accept", json={"min_quality": best}).json()
    assert rule["accepted"] == sum(mask.quality >= best for mask in queue)
    worst = queue[0]
    clicked = asking.suggest(worst, [tuple(worst.point or ())])
    asking.correct(worst, clicked.segmentation)
    version = asking.corrections(labelled)
    assert version.annotations == len(document["annotations"]) + rule["accepted"] + 1
    again = asking.train(version, from_model=told.model_id, **request).id
    until(over(job_row, again), 400)
    assert asking.job(again).succeeded, asking.job(again)
    confirmed = {mask.id for mask in asking.pseudo_masks(again) if mask.source == "confirmed"}
    assert confirmed == {mask.id for mask in asking.review(labelled, status="accepted")} | {
        worst.id
    }
    worker.terminate()
    worker.wait(60)
