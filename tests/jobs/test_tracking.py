"""Trainings in TensorBoard, MLflow (a real server) and Weights & Biases (offline)."""

import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db.columns import now
from app.db.models import EventType, Job, JobEvent, JobState, JobTracker, Model
from app.db.session import Database
from app.jobs import events
from app.settings import Settings
from app.storage.store import Storage
from sapnet.cli.tracking import Trackers
from sapnet.errors import InvalidConfig
from sapnet.pipeline.events import Done, Progressed, Validated, Warned
from sapnet.utils.tracking.base import (
    Ending,
    Scalar,
    TrackedEvent,
    flattened,
    scalars_of,
)
from sapnet.utils.tracking.session import Session
from worker.background import tracking
from worker.background import tracking_rows as rows
from worker.background.tracking import Tracking
from worker.runtime import tracker_process
from worker.runtime.tracker_process import TrackerFailed

Track = Callable[..., None]


def progress(seq: int, step: int, stage: str = "train", **losses: float) -> TrackedEvent:
    data = {"stage": stage, "step": step, "of": 9, "losses": losses or {"dice": 1.0 / step}}
    return TrackedEvent(seq=seq, type="progress", time=1000.0 + seq, data=data)


class Kept:
    """A tracker that keeps what it is given."""

    run_id, url = "r", None

    def __init__(self, **reached: int) -> None:
        self.scalars: list[Scalar] = []
        self._reached = {name.replace("_", "/"): step for name, step in reached.items()}

    def reached(self) -> Mapping[str, int]:
        return self._reached

    def log(self, scalars: Sequence[Scalar]) -> None:
        self.scalars += scalars

    def finish(self, ending: Ending) -> None:
        pass

    def close(self) -> None:
        pass


def test_figures_of_events() -> None:
    (dice, focal) = scalars_of(progress(1, 4, dice=0.5, focal=2.0))
    assert dice == ("train/dice", 0.5, 4, 1001.0)
    assert focal.name == "train/focal"
    validated = {"step": 8, "of": 9, "against": "ground truth", "figures": {"AP": 0.25, "AP50": 1}}
    scalars = scalars_of(TrackedEvent(seq=2, type="validation", time=5.0, data=validated))
    assert [s[:3] for s in scalars] == [("validation/AP", 0.25, 8), ("validation/AP50", 1.0, 8)]
    for none in (
        {"stage": "train", "step": 1, "losses": None},
        {"stage": "train", "step": None, "losses": {"dice": 1.0}},
        {"stage": "train", "step": 1, "losses": {"dice": None, "focal": float("nan")}},
    ):
        assert scalars_of(TrackedEvent(seq=1, type="progress", time=0.0, data=none)) == []
    assert scalars_of(TrackedEvent(seq=1, type="warning", time=0.0, data={"message": "x"})) == []


def test_numbers_of_a_document() -> None:
    document = {"a b": {"c": 1, "d": None, "e": "x", "f": True}, "g": float("inf"), "h": [1]}
    assert dict(flattened(document)) == {"a_b/c": 1.0}


def test_no_step_is_kept_twice() -> None:
    tracker = Kept(teacher_dice=3)
    session = Session(tracker, {"train/dice": 2})
    for seq, step in enumerate([1, 2, 3, 4, 2, 3, 4, 5], 1):
        session.take(progress(seq, step))
        session.take(progress(seq, step, "teacher"))
    steps = Counter((s.name, s.step) for s in tracker.scalars)
    assert set(steps) == {
        *(("train/dice", n) for n in (3, 4, 5)),
        *(("teacher/dice", n) for n in (4, 5)),
    }
    assert set(steps.values()) == {1}
    assert session.reached == {"train/dice": 5, "teacher/dice": 5}


def test_a_setting_names_trackers() -> None:
    settings = Settings(_env_file=None, tracking="MLflow, tensorboard,mlflow")  # type: ignore[call-arg,arg-type]
    assert settings.tracking == ("mlflow", "tensorboard")
    with pytest.raises(ValueError, match="there are tensorboard, mlflow, wandb"):
        Settings(_env_file=None, tracking="comet")  # type: ignore[call-arg,arg-type]


def test_track_names_trackers(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="there are tensorboard, mlflow, wandb"):
        Trackers(["comet"], tmp_path, {}, lambda event: None)


@pytest.fixture
def training_of(new_job: Callable[..., str], database: Database) -> Callable[[str, int, int], None]:
    """Adds progress of a training to its log, steps `first` to `last`."""

    def add(job_id: str, first: int, last: int) -> None:
        new = [(EventType.PROGRESS, dict(progress(0, n).data)) for n in range(first, last + 1)]
        with database.begin() as session:
            events.append(session, job_id, new)

    return add


@pytest.fixture
def tracked(new_job: Callable[..., str]) -> str:
    """A training that has begun."""
    return new_job(
        state=JobState.RUNNING,
        started_at=now(),
        request={"overrides": {"train.epochs": 2}, "proposals": {"kind": "hierarchy"}},
    )


@pytest.fixture
def ended(database: Database, storage: Storage, tmp_path: Path) -> Callable[[str], None]:
    """Ends a training with results."""

    def end(job_id: str) -> None:
        blobs = {n: storage.put_bytes(f"{n} of {job_id}".encode()) for n in ("model", "report")}
        with database.begin() as session:
            job = session.get_one(Job, job_id)
            model = Model(
                job_id=job_id, name="m", categories=[], sha256=blobs["model"], size=3, meta={}
            )
            session.add(model)
            session.flush()
            job.state, job.model_id = JobState.SUCCEEDED, model.id
            job.metrics = {"pseudo_masks": {"miou_mask": 0.75}, "model": None}
            job.report_html_sha = blobs["report"]
            session.flush()
            events.append_state(session, job_id)

    return end


@pytest.fixture
def follow(
    database: Database, storage: Storage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Track:
    """One round of a worker's tracking, to its end."""
    monkeypatch.setattr(tracking, "IDLE_SECONDS", 0.0)

    def once(*trackers: str, **changed: Any) -> None:
        values = {"tracking": trackers, "tracking_dir": settings.data_dir / "runs", **changed}
        worker = Tracking(database, storage, settings.model_copy(update=values))
        worker.run_once()
        for follower in worker._followers:
            follower.join(300)
            assert not follower.is_alive()

    return once


@pytest.fixture
def row(database: Database) -> Callable[[], JobTracker]:
    def of() -> JobTracker:
        with database.read() as session:
            return session.scalars(select(JobTracker)).one()

    return of


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.mark.slow
def test_tensorboard(
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    ended: Callable[[str], None],
    row: Callable[[], JobTracker],
    job_row: Callable[[str], Job],
    settings: Settings,
    database: Database,
    client: TestClient,
    tmp_path: Path,
) -> None:
    """A training that breaks off and does steps again, followed by two workers in turn."""
    training_of(tracked, 1, 5)
    follow("tensorboard")
    folder = settings.data_dir / "runs" / "tensorboard" / tracked
    assert [step for step, _ in series(folder)["train/dice"]] == [1, 2, 3, 4, 5]
    assert row().due_at is not None
    with database.begin() as session:  # as if the worker had died before it noted how far it was
        kept = session.scalars(select(JobTracker)).one()
        kept.sent, kept.reached = 2, {"train/dice": 2}
    training_of(tracked, 4, 8)
    follow("tensorboard")
    ended(tracked)
    follow("tensorboard")
    values = series(folder)
    assert [step for step, _ in values["train/dice"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert values["train/dice"][3][1] == 0.25
    assert values["final/pseudo_masks/miou_mask"] == [(8, 0.75)]
    assert (row().due_at, row().error) == (None, None), "it is done"
    link = client.get(f"/jobs/{tracked}").json()["tracking"]["tensorboard"]
    answer = client.get(link)
    assert answer.status_code == 200
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "events.out.tfevents.1").write_bytes(answer.content)
    taken = series(tmp_path / "taken")
    assert taken["train/dice"] == values["train/dice"]
    follow("tensorboard")
    assert series(folder) == values, "nothing is added to a run that is over"


@pytest.mark.slow
def test_a_server_that_is_away_is_a_warning_and_no_more(
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    row: Callable[[], JobTracker],
    job_row: Callable[[str], Job],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    training_of(tracked, 1, 3)
    before = now()
    follow("mlflow")
    kept = row()
    assert (kept.tries, kept.sent) == (1, 0)
    assert kept.due_at is not None
    assert kept.due_at > before, "it is tried again"
    with database.read() as session:
        warnings = [
            e.data["message"]
            for e in session.scalars(select(JobEvent))
            if e.type == EventType.WARNING
        ]
    (warning,) = warnings
    assert warning.startswith("mlflow does not take the run now, and is tried again: ")
    job = job_row(tracked)
    assert (job.state, job.warnings, job.error) == (JobState.RUNNING, [], None)


@pytest.mark.slow
def test_a_server_that_hangs_is_given_up_in_time(
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    row: Callable[[], JobTracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        training_of(tracked, 1, 3)
        follow("mlflow", tracking_timeout_seconds=3)
    assert row().tries == 1
    assert "has not answered within 3 seconds" in (row().error or "")


@pytest.mark.slow
@pytest.mark.parametrize("taken_away", [False, True])
def test_a_tracker_is_held_longer_than_any_answer_takes(
    taken_away: bool,
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the answers before took; and one that another worker holds is given no more."""
    asked: list[timedelta] = []

    class Slow:
        def __init__(self, folder: Path, timeout: float) -> None: ...

        def __enter__(self) -> "Slow":
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
            with database.begin() as session:
                kept = session.scalars(select(JobTracker)).one()
                assert kept.due_at is not None
                asked.append(kept.due_at - now())
                kept.due_at = now()  # as if the answer had taken all that time
                kept.turn += taken_away
            return {"run_id": "r", "url": None, "reached": {}}

    monkeypatch.setattr(tracking, "TrackerProcess", Slow)
    training_of(tracked, 1, 3)
    follow("mlflow", tracking_timeout_seconds=500)
    assert len(asked) == (1 if taken_away else 4)
    assert min(asked) > timedelta(seconds=500)


@pytest.mark.slow
def test_what_a_process_said_before_it_died_holds_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "no answer of https://ann:secret1@tracks/a and https://token2@tracks/b"
    code = f"import sys; sys.stdin.readline(); sys.exit({told!r})"
    monkeypatch.setattr(tracker_process, "COMMAND", (sys.executable, "-S", "-c", code))
    with (
        tracker_process.TrackerProcess(tmp_path, 60) as process,
        pytest.raises(TrackerFailed, match="no answer of https") as caught,
    ):
        process.ask({})
    assert "secret1" not in str(caught.value)
    assert "token2" not in str(caught.value)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import subprocess

    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if httpx2.get(f"{url}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.service
def test_mlflow(
    mlflow_server: str,
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    ended: Callable[[str], None],
    row: Callable[[], JobTracker],
    database: Database,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    training_of(tracked, 1, 4)
    follow("mlflow")
    with database.begin() as session:  # as if nothing of it had been noted
        kept = session.scalars(select(JobTracker)).one()
        first, kept.run_id, kept.sent, kept.reached = kept.run_id, None, 0, {}
    training_of(tracked, 3, 6)
    ended(tracked)
    follow("mlflow")
    assert row().error is None
    assert row().run_id == first, "the same run goes on"

    import mlflow

    mlflow.set_tracking_uri(mlflow_server)
    server = mlflow.MlflowClient()
    (experiment,) = [e for e in server.search_experiments() if e.name == "sapnet"]
    (run,) = server.search_runs([experiment.experiment_id])
    assert run.info.run_id == first
    assert run.info.status == "FINISHED"
    history = server.get_metric_history(first, "train/dice")
    assert [m.step for m in history] == [1, 2, 3, 4, 5, 6]
    assert run.data.metrics["final/pseudo_masks/miou_mask"] == 0.75
    asked = {"method": "sapnet++", "preset": "cpu", "seed": "3", "train.epochs": "2"}
    assert run.data.params.items() >= asked.items()
    assert run.data.params["images"] == "2"
    assert {a.path for a in server.list_artifacts(first)} >= {"report.html"}
    (model,) = server.search_logged_models([experiment.experiment_id])
    info = mlflow.models.get_model_info(model.model_uri)
    assert [i.name for i in info.signature.inputs] == ["image"]
    assert [o.name for o in info.signature.outputs][:2] == ["category_id", "score"]
    local = Path(mlflow.artifacts.download_artifacts(model.model_uri, dst_path=str(tmp_path / "m")))
    assert (local / "data" / "model.pt").read_bytes() == f"model of {tracked}".encode()
    link = client.get(f"/jobs/{tracked}").json()["tracking"]["mlflow"]
    assert link == f"{mlflow_server}/#/experiments/{experiment.experiment_id}/runs/{first}"
    assert httpx2.get(link).status_code == 200


@pytest.mark.slow
def test_weights_and_biases_offline(
    follow: Track,
    tracked: str,
    training_of: Callable[..., None],
    ended: Callable[[str], None],
    row: Callable[[], JobTracker],
    settings: Settings,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    training_of(tracked, 1, 3)
    follow("wandb")
    training_of(tracked, 2, 5)
    ended(tracked)
    follow("wandb")
    assert row().error is None
    folder = settings.data_dir / "runs" / "wandb" / "wandb"
    files = sorted(folder.glob(f"offline-run-*/run-{tracked}.wandb"))
    assert len(files) == 2, "two parts of one run"
    steps = [
        json.loads(value) for file in files for key, value in history(file) if key == "train/step"
    ]
    assert steps == [1, 2, 3, 4, 5]
    assert client.get(f"/jobs/{tracked}").json()["tracking"] == {"wandb": None}


def history(path: Path) -> Iterator[tuple[str, str]]:
    """The items of the history in a file of Weights & Biases.

    It is a log of LevelDB: blocks of 32 KiB with records of checksum, length and type (1 whole; 2,
    3, 4 the first, a middle and the last part), after a header of 7 bytes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            for item in Record.FromString(parts).history.item:
                yield item.key or "/".join(item.nested_key), item.value_json
            parts = b""


@pytest.mark.parametrize(("minutes", "is_tracked"), [(1, True), (100, False)])
def test_trainings_that_ended_while_no_worker_was_up(
    minutes: int, is_tracked: bool, new_job: Callable[..., str], database: Database
) -> None:
    ended = now() - timedelta(minutes=minutes)
    new_job(state=JobState.SUCCEEDED, created_at=ended - timedelta(hours=9), finished_at=ended)
    rows.register(database, ["tensorboard"], now() - tracking.BEFORE)
    with database.read() as session:
        assert (session.scalar(select(JobTracker.id)) is not None) == is_tracked


def test_nothing_is_looked_for_without_the_setting(
    database: Database, storage: Storage, settings: Settings
) -> None:
    worker = Tracking(database, storage, settings)
    worker.start()
    worker.join(30)
    assert not worker.is_alive()


@pytest.mark.slow
def test_track_of_the_command(tmp_path: Path) -> None:
    """Stopped and started again, and with a tracker that fails beside it."""
    out = tmp_path / "run"
    for first, last in ((1, 3), (2, 5)):
        told: list[Any] = []
        trackers = Trackers(["tensorboard"], out, {"seed": "0"}, told.append)
        for step in range(first, last + 1):
            trackers.emit_event(Progressed("train", step, 5, losses={"dice": 1.0 / step}))
        if last == 5:
            (out / "result").mkdir()
            (out / "result" / "metrics.json").write_text('{"model": {"AP": 0.5}}')
            trackers.emit_event(Validated(5, 5, "ground truth", {"AP": 0.5}))
            trackers.emit_event(Done({"all": 1.0}, 1))
        trackers.close()
        assert not [event for event in told if isinstance(event, Warned)]
    (folder,) = (out / "tracking" / "tensorboard").iterdir()
    values = series(folder)
    assert [step for step, _ in values["train/dice"]] == [1, 2, 3, 4, 5]
    assert values["validation/AP"] == [(5, 0.5)]
    assert values["final/model/AP"] == [(5, 0.5)]


@pytest.mark.slow
def test_a_tracker_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str, info: Any) -> None:
        raise RuntimeError("no such host")

    monkeypatch.setattr("sapnet.cli.tracking.open_tracker", refuse)
    told: list[Any] = []
    trackers = Trackers(["wandb"], tmp_path, {}, told.append)
    began = threading.active_count()
    for step in range(1, 20):
        trackers.emit_event(Progressed("train", step, 20))
    trackers.close()
    (warning,) = [event for event in told if isinstance(event, Warned)]
    assert "wandb does not take the run: RuntimeError: no such host" in warning.message
    assert len(told) == 20
    assert threading.active_count() <= began
