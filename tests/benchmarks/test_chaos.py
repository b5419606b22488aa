"""The short form of `make chaos`: kills of three kinds, and a trainer that trains nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("redis-server") is None or not Path("/usr/lib/postgresql").exists(),
        reason="redis-server and PostgreSQL are not installed",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
FAKE = [str(ROOT / "tests" / "jobs" / "fake_trainer.py"), "--steps", "25", "--sleep", "0.1"]
SETTINGS = {
    "SAPNET_TRAINER_COMMAND": json.dumps([sys.executable, *FAKE]),
    "SAPNET_LEASE_SECONDS": "10",
    "SAPNET_HEARTBEAT_SECONDS": "1",
    "SAPNET_REAP_SECONDS": "1",
}


def test_jobs_survive_and_leave_nothing_behind(tmp_path: Path) -> None:
    found = tmp_path / "chaos.json"
    document = tmp_path / "reliability.md"
    document.write_text(
        "before\n<!-- figures of `make chaos` -->\nold\n<!-- end of the figures -->\nafter\n"
    )
    kills = "celery child,celery parent,postgresql"
    command = [sys.executable, "benchmarks/chaos.py", "--kills", "3", "--victims", kills]
    changes = [word for n, v in SETTINGS.items() for word in ("--set", f"{n}={v}")]
    outputs = ["--json", str(found), "--markdown", str(document)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *changes, *outputs],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(found.read_text())
    by_victim = {kill["victim"]: kill for kill in report["kills"]}
    assert sorted(by_victim) == ["celery child", "celery parent", "postgresql"]
    assert {kill["state"] for kill in report["kills"]} == {"succeeded_with_warnings"}
    assert by_victim["celery child"]["attempts"] >= 2  # a stall may cost one more
    assert report["leftovers"] == []
    text = document.read_text()
    assert "| celery child | 1 | 1 | 1 |" in text
    assert (text[:7], text[-6:], "old" in text) == ("before\n", "after\n", False)
