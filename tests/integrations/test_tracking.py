"""docs/integrations/tracking.md, whole."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sapnet.data.synthetic import make_scenes
from tests.integrations.short_trainer import SHORT


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_curves(run_page: Callable[..., str], tmp_path: Path) -> None:
    trainer = [sys.executable, str(Path(__file__).with_name("short_trainer.py"))]
    said = run_page(
        "tracking.md",
        ports=(8001, 8002, 5000),
        SAPNET_TRAINER_COMMAND=json.dumps(trainer),
        WANDB_MODE="offline",
    )
    folder = tmp_path / "newcomer"
    assert (folder / "results" / "masks.json").stat().st_size > 100
    assert "events.out.tfevents" in said
    assert b"train/" in (folder / "runs" / "events.out.tfevents.1").read_bytes()
    assert "'tensorboard': '/jobs/" in said
    assert "FINISHED" in said
    assert "offline-run-" in said


@pytest.mark.slow
def test_the_command_without_a_service_is_tracked(tmp_path: Path) -> None:
    """The page's own command, with settings that make its training short."""
    page = (Path(__file__).resolve().parents[2] / "docs/integrations/tracking.md").read_text()
    (command,) = re.findall(r"^sapnet train .*--track.*$", page, re.MULTILINE)
    scenes = make_scenes(tmp_path / "drawn", 4, size=(96, 112))
    scenes.images.rename(tmp_path / "photos")
    scenes.points.rename(tmp_path / "points.json")
    short = [f"--set={name}={json.dumps(value)}" for name, value in SHORT.items()]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--preset", "demo", *short],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = tmp_path / "runs" / "a" / "tracking"
    assert list((files / "tensorboard").rglob("events.out.tfevents.*"))
    with sqlite3.connect(files / "mlflow" / "mlflow.db") as database:
        (states,) = zip(*database.execute("select status from runs"), strict=True)
        names = {name for (name,) in database.execute("select distinct key from metrics")}
    assert states == ("FINISHED",)
    assert any(name.startswith("train/") for name in names)
