"""A bug in a worker: what it logs and what the job says are bounded, and hold no secret."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.db.models import Job
from app.jobs.kinds import TRAIN
from app.jobs.queue import TASK
from app.observability import logging as logs
from worker.jobs import execute as jobs
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

MOST = 20_000  # bytes
PASSWORD, SECRET = "hunter2hunter2", "whsec_" + "S3cReT/+" * 5


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True], ids=["console", "json"])
def test_a_bug_in_an_attempt(
    as_json: bool,
    new_job: Callable[..., str],
    new_worker: Callable[..., WorkerContext],
    job_row: Callable[[str], Job],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fall(*_: Any) -> None:
        held = {"secret": SECRET, "large": list(range(100_000))}
        try:
            raise KeyError(f"s3 {SECRET} {held!r}")
        except KeyError as error:
            raise RuntimeError(f"redis://:{PASSWORD}@broker/0 {'y' * 5_000_000}") from error

    monkeypatch.setattr(jobs, "handler_of", fall)
    job_id, worker = new_job(), new_worker()
    logs.configure("info", as_json)
    try:
        capfd.readouterr()
        execute(job_id, worker)
        written = capfd.readouterr().err
    finally:
        logs.configure("info", False)
    assert "Traceback (most recent call last)" in written
    assert "attempt failed" in written
    assert len(written.encode()) < MOST
    said = job_row(job_id).error
    assert said is not None
    assert said.startswith("RuntimeError: redis://:***@broker/0")
    assert len(said) < MOST
    for text in (written, said):
        assert PASSWORD not in text
        assert SECRET[6:] not in text


@pytest.mark.service
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server installed")
@pytest.mark.parametrize("stack", ["full"], indirect=True)
def test_what_celery_logs_is_of_the_same_form(
    start: Callable[..., Any], stack: dict[str, str], tmp_path: Path, until: Callable[..., None]
) -> None:
    """Sent by somebody else: a message that is no job of ours, with a secret in its arguments."""
    start("worker.main", TRAIN, SAPNET_BROKER_URL=stack["broker_url"], SAPNET_LOG_JSON="true")
    from celery import Celery

    sender = Celery("test", broker=stack["broker_url"])
    sender.send_task(TASK, args=[f"{SECRET}{'z' * 1_000_000}", "too", "many"], queue=TRAIN)
    sender.close()
    output = tmp_path / "output.txt"
    until(lambda: "TypeError" in output.read_text())
    text = output.read_text()
    assert SECRET[6:] not in text
    assert len(text) < MOST
    logged = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any("TypeError" in line.get("exception", "") for line in logged)
