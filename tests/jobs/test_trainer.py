"""The trainer as a process: the protocol, its end, and the death of its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from sapnet.pipeline.contract import ExitCode
from worker.runtime.parent_death import spawn_with_parent
from worker.runtime.subprocess import Trainer, parse_event

FAKE = Path(__file__).with_name("fake_trainer.py")


def job_file(folder: Path) -> Path:
    points = {
        "images": [{"id": 7, "file_name": "a.png", "width": 9, "height": 8}],
        "annotations": [{"id": 5, "image_id": 7, "category_id": 0, "point": [4.5, 4.5]}],
        "categories": [{"id": 0, "name": "cell"}],
    }
    (folder / "points.json").write_text(json.dumps(points))
    job = {"points": str(folder / "points.json"), "workdir": str(folder), "truth": None, "seed": 3}
    (folder / "JOB.json").write_text(json.dumps(job))
    return folder / "JOB.json"


def start(folder: Path, *args: str, **settings: Any) -> Trainer:
    command = [sys.executable, str(FAKE), *args, str(job_file(folder))]
    return Trainer(command, workdir=folder, **settings)


@pytest.mark.slow
def test_events_and_log(tmp_path: Path) -> None:
    trainer = start(tmp_path)
    events = list(trainer.events())
    assert trainer.wait() == ExitCode.DONE
    assert [e["event"] for e in events] == ["start", "warning", *["progress"] * 4, "done"]
    assert events[2]["step"] == 1
    assert events[2]["losses"] == {"psm": 1.0}
    log = (tmp_path / "log.txt").read_text()
    assert "a log line of the trainer" in log
    assert "this line is not of the protocol" in log


@pytest.mark.slow
def test_terminate_stops_and_a_second_run_goes_on(tmp_path: Path) -> None:
    steps: list[int] = []
    trainer = start(tmp_path, "--steps", "400", "--sleep", "0.02", should_stop=lambda: bool(steps))
    for event in trainer.events():
        if event["event"] == "progress":
            steps.append(event["step"])
    assert trainer.wait() == ExitCode.STOPPED
    reached = int((tmp_path / "state.txt").read_text())
    assert reached == steps[-1] < 400
    again = start(tmp_path, "--steps", str(reached + 2))
    assert next(e["step"] for e in again.events() if e["event"] == "progress") == reached + 1
    assert again.wait() == ExitCode.DONE


@pytest.mark.slow
def test_a_deaf_trainer_is_killed(tmp_path: Path) -> None:
    heard: list[object] = []
    args = ("--steps", "9999", "--sleep", "0.05", "--deaf")
    trainer = start(tmp_path, *args, should_stop=lambda: bool(heard), grace_seconds=0.3)
    for event in trainer.events():
        heard.append(event)
    assert trainer.wait() == -signal.SIGKILL
    assert 1 <= len(heard) < 400


@pytest.mark.slow
def test_a_child_that_keeps_the_pipe_open_does_not_hang_the_reader(tmp_path: Path) -> None:
    trainer = start(tmp_path, "--child")
    began = time.monotonic()
    assert list(trainer.events())[-1]["event"] == "done"
    assert trainer.wait() == ExitCode.DONE
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_command_that_does_not_exist_fails_and_says_so(tmp_path: Path) -> None:
    trainer = Trainer([str(tmp_path / "nothing")], workdir=tmp_path)
    assert list(trainer.events()) == []
    assert trainer.wait() == 1
    assert "FileNotFoundError" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_sam_checkpoints_reach_it_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a `.env`, too, and relative to the service's folder, not to the job's."""
    (tmp_path / "work").mkdir()
    (tmp_path / ".env").write_text(
        'SAPNET_SAM_CHECKPOINT=h.pth\nSAPNET_SAM_CHECKPOINTS={"cells": "m/cells.pt"}\n'
    )
    monkeypatch.chdir(tmp_path)
    script = (
        "import json; from sapnet.proposals.sam.checkpoints import environment_checkpoints;"
        "print(json.dumps({n: str(p) for n, p in environment_checkpoints().items()}))"
    )
    trainer = Trainer(
        [sys.executable, "-c", script],
        workdir=tmp_path / "work",
        environment=Settings().trainer_environment,
    )
    assert list(trainer.events()) == []
    assert trainer.wait() == 0
    paths = {"default": str(tmp_path / "h.pth"), "cells": str(tmp_path / "m" / "cells.pt")}
    assert json.loads((tmp_path / "work" / "log.txt").read_text()) == paths


@pytest.mark.parametrize(
    "line", [b"", b"3", b"null", b"[1]", b"{", b'{"a": 1}', b'{"event": 3}', b"\xff\xfe"]
)
def test_stray_lines_are_no_events(line: bytes) -> None:
    assert parse_event(line) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's own")
def test_the_trainer_dies_with_its_worker(
    tmp_path: Path, until: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    command = [sys.executable, str(FAKE), "--steps", "9999", "--sleep", "0.05", "--deaf"]
    script = (
        "import sys, pathlib; from worker.runtime.subprocess import Trainer\n"
        f"t = Trainer({[*command, str(job_file(tmp_path))]!r},"
        f" workdir=pathlib.Path({str(tmp_path)!r}))\n"
        "print(t.pid, flush=True)\n"
        "for _ in t.events(): pass\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    until((tmp_path / "starts.txt").exists)
    assert alive(pid)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    until(lambda: not alive(pid))


@pytest.mark.slow
def test_two_never_run_in_one_folder(tmp_path: Path) -> None:
    lock = tmp_path / "trainer.lock"
    sleep = [sys.executable, "-c", "print('first', flush=True); input()"]
    first = subprocess.Popen(
        spawn_with_parent(sleep, sig=signal.SIGKILL, lock=lock),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "first\n"
    mark = tmp_path / "second"
    second = subprocess.Popen(
        spawn_with_parent(["touch", str(mark)], sig=signal.SIGKILL, lock=lock)
    )
    time.sleep(0.3)
    assert second.poll() is None
    assert not mark.exists()
    first.stdin.write("\n")
    first.stdin.close()
    assert first.wait() == 0
    first.stdout.close()
    assert second.wait(60) == 0
    assert mark.exists()


def test_a_process_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    command = spawn_with_parent(["touch", str(tmp_path / "mark")], sig=signal.SIGKILL)
    command[4] = str(os.getppid())
    assert subprocess.run(command).returncode == 1
    assert not (tmp_path / "mark").exists()
