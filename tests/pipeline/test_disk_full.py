"""A run whose disk is full says so, keeps what it had, and goes on once there is room."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sapnet.errors import DiskFull, is_disk_full

pytestmark = pytest.mark.slow

SIZES = [(48, 64)] * 4
POINTS = [(image, 4, 20.0 + image, 20.0) for image in range(4)]
FOUR_STEPS = {"train.epochs": 2, "train.batch_size": 2, "train.checkpoint_every": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, room):
    """A file that leaves `room` bytes."""
    path = folder / "filler"
    disk = os.statvfs(folder)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - room)
    return path


def test_while_proposals_are_made(small_world, go, small_disk):
    store = small_disk / "proposals"
    spec = replace(small_world(SIZES, POINTS, overrides=FOUR_STEPS), proposal_store=store)
    store.mkdir()
    (store / "lock").touch()
    filler = fill(small_disk, 0)
    outcome = go(spec)
    assert is_disk_full(outcome.error)
    assert not (spec.workdir / "set_aside.json").exists()
    filler.unlink()
    outcome = go(spec)
    assert outcome.error is None
    assert outcome.report["set_aside"] == []


def test_while_a_checkpoint_is_written(small_world, go, small_disk, result_of):
    """torch.save tells it in words of its own."""
    unbroken = small_world(SIZES, POINTS, overrides=FOUR_STEPS)
    assert go(unbroken).error is None
    spec = replace(unbroken, workdir=small_disk / "work")

    def fill_up(event):
        if event.get("stage") == "train" and event["step"] == 2:
            fill(small_disk, (checkpoint.stat().st_size * 2) // 3)
        return False

    checkpoint = spec.workdir / "train" / "checkpoint.pt"
    outcome = go(spec, fill_up)
    assert is_disk_full(outcome.error)
    assert torch.load(checkpoint, weights_only=True)["step"] == 1
    left = {path.name for path in checkpoint.parent.iterdir()}
    assert left == {"checkpoint.pt", "losses.json"}
    (small_disk / "filler").unlink()
    outcome = go(spec)
    assert outcome.error is None
    assert sorted(outcome.steps) == [2, 3, 4]
    assert result_of(spec) == result_of(unbroken)


def test_what_is_kept_free_for_others(small_world, go, small_disk):
    spec = small_world(SIZES, POINTS, overrides=FOUR_STEPS)
    spec = replace(spec, workdir=small_disk / "work", reserve_bytes=12 << 20)
    filler = fill(small_disk, 8 << 20)
    outcome = go(spec)
    assert isinstance(outcome.error, DiskFull)
    assert "7 MB are free, 12 MB must stay so" in str(outcome.error)
    filler.unlink()
    assert go(replace(spec, reserve_bytes=1 << 20)).error is None


def test_the_command_says_so(small_world, small_disk):
    spec = small_world(SIZES, POINTS, overrides=FOUR_STEPS)
    job = {
        "points": str(spec.points),
        "image_paths": {str(k): str(v) for k, v in spec.image_paths.items()},
        "workdir": str(small_disk / "work"),
        "proposal_store": str(small_disk / "proposals"),
        "overrides": spec.overrides,
        "proposals": spec.proposals,
        "backbone_weights": str(spec.backbone_weights),
    }
    path = small_disk.with_name("job.json")
    path.write_text(json.dumps(job))
    fill(small_disk, 0)
    command = [sys.executable, "-m", "sapnet.cli", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["event"], last["reason"]) == (1, "error", "disk_full")
    assert "no space is left" in last["message"]
    assert "Traceback" not in done.stderr


def test_other_errors_are_no_full_disk():
    assert not is_disk_full(None)
    assert not is_disk_full(OSError(2, "No such file"))
    assert not is_disk_full(RuntimeError("unexpected pos 704 vs 598"))
    as_torch_tells_it = RuntimeError("unexpected pos 704 vs 598")
    as_torch_tells_it.__context__ = OSError(28, "No space left on device")
    assert is_disk_full(as_torch_tells_it)
