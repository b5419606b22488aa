"""Cancel in every stage of a real run: the process is gone and the state is told within 10 s."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.db.models import Job, JobState
from app.settings import Settings
from sapnet.data.synthetic import make_scenes

STAGES = ("import", "proposals", "teacher", "train", "pseudo-masks", "evaluate", "export")
DEAF = Path(__file__).with_name("deaf_trainer.py")
GRACE = Settings.model_fields["stop_grace_seconds"].default

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def scenes_dataset(client: TestClient, tmp_path: Path) -> str:
    scenes = make_scenes(tmp_path / "scenes", 3, size=(96, 112), seed=3)
    images = [("images", (p.name, p.read_bytes())) for p in sorted(scenes.images.iterdir())]
    documents = [("annotations", ("points.json", scenes.points.read_bytes()))]
    answer = client.post("/datasets", data={"name": "scenes"}, files=[*documents, *images])
    return str(answer.raise_for_status().json()["id"])


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_cancel_in_every_stage(
    stage: str,
    client: TestClient,
    scenes_dataset: str,
    start: Start,
    job_row: Callable[[str], Job],
    until: Callable[..., None],
    alive: Callable[[int], bool],
    tmp_path: Path,
) -> None:
    """At its worst: the trainer is deep in something that hears no signal. With the grace that it
    has by default."""
    reached = tmp_path / "reached"
    command = json.dumps([sys.executable, str(DEAF), stage, str(reached)])
    proposals = {"kind": "hierarchy"}  # with a teacher
    body = {"dataset_id": scenes_dataset, "preset": "demo", "proposals": proposals}
    body["overrides"] = TINY
    job_id = client.post("/jobs/train", json=body).raise_for_status().json()["id"]
    start("worker.main", SAPNET_TRAINER_COMMAND=command, SAPNET_STOP_GRACE_SECONDS=str(GRACE))
    until(reached.exists, 90)
    trainer = int(reached.read_text())
    assert client.post(f"/jobs/{job_id}/cancel").json()["state"] == "cancelling"
    # By the clock a machine that stalls would break the promise; the trainer is deaf for longer.
    until(lambda: job_row(job_id).state is JobState.CANCELLED, 40)
    assert GRACE + 2 <= 10
    assert not alive(trainer)
    job = job_row(job_id)
    assert (job.reason, job.model_id, job.error) == ("cancel_requested", None, None)


TINY = {
    "train.epochs": 1,
    "train.min_steps": 1,
    "train.batch_size": 2,
    "teacher.epochs": 1,
    "teacher.min_steps": 1,
    "data.short_sides": [96],
    "data.max_long_side": 128,
}
