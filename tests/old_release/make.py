"""Make the fixture of a service's data as the first release left it: `first.tar.xz`, `first.json`.

    git worktree add /tmp/first 96436ea
    cd /tmp/first && PYTHONPATH=$PWD python …/tests/old_release/make.py …/tests/old_release

It runs that release's own service: a dataset with truth, a training, a review, exports, an alias,
an API key. `first.json` holds what it answered to each of `PATHS`, for comparison.

The model must be small to be committed, but MobileNetV2 has two million weights whatever the
settings. So all of a layer are ± one value, which compresses, and that value is so large (BatchNorm
divides it out) that the optimizer's steps are less than its last digit: the body keeps its values,
the heads learn.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision

from sapnet.data.synthetic import make_scenes
from sapnet_client import Client

SCALE = 2.0**24
OVERRIDES = {
    "backbone.fpn_channels": 16,
    "mil.fc_channels": 32,
    "solo.channels": 16,
    "solo.stacked_convs": 1,
    "solo.mask_channels": 16,
    "solo.mask_feature_channels": 16,
    "solo.score_threshold": 0.01,
    "solo.keep_threshold": 0.0,
    "train.epochs": 80,
    "train.batch_size": 2,
    "train.checkpoint_every": 100,
    "train.warmup_steps": 2,
    "train.weight_decay": 0.0,
    "teacher.epochs": 1,
    "teacher.min_steps": 6,
    "data.short_sides": [64],
    "data.max_long_side": 96,
}
PATHS = (
    "/datasets",
    "/datasets/{dataset}",
    "/datasets/{dataset}/images",
    "/datasets/{dataset}/annotations",
    "/jobs",
    "/jobs/{job}",
    "/jobs/{job}/pseudo-masks",
    "/jobs/{job}/metrics",
    "/jobs/{job}/review",
    "/jobs/{job}/exports",
    "/models",
    "/models/{model}",
    "/models/aliases",
    "/models/aliases/best",
    "/predict?model={model}&image=1&score=0",
    "/predict?model=best&image=2&score=0",
)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = make_scenes(folder / "scenes", 2, size=(96, 96), seed=3)
        weights = folder / "mobilenet.pt"
        torch.save(compressible_weights(), weights)
        data = folder / "var"
        key = make_key(data)
        with service(data, SAPNET_BACKBONE_WEIGHTS=str(weights)) as url:
            answers = use(url, key, scenes)
        (target / "first.json").write_text(json.dumps(answers, indent=1) + "\n")
        pack(data, target / "first.tar.xz")


def compressible_weights() -> dict[str, torch.Tensor]:
    """A MobileNetV2 of random signs, scaled up, with BatchNorms that scale back."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = torchvision.models.mobilenet_v2(weights=None).state_dict()
    for name, value in state.items():
        if value.dim() == 4:
            state[name] = torch.where(value < 0, -1.0, 1.0) * value.std() * SCALE
        elif name.endswith("running_var"):
            state[name] = value * SCALE**2
    return state


@contextlib.contextmanager
def service(data: Path, **settings: str) -> Iterator[str]:
    """Run the service on a free port, with a worker; gives its URL."""
    environment = {**os.environ, **settings, "SAPNET_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    log = data.with_suffix(".log")
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "is at http" in line), None)
            if line is None:
                raise RuntimeError(log.read_text())
            yield line.split(" is at ")[1].split()[0]
        finally:
            process.terminate()


def make_key(data: Path) -> str:
    """Return a new API key."""
    command = [sys.executable, "-m", "app.cli", "keys", "create", "anna", "--scope", "admin"]
    environment = {**os.environ, "SAPNET_DATA_DIR": str(data)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def use(url: str, key: str, scenes: Any) -> dict[str, Any]:
    """Do what a user does, then ask for everything."""
    with Client(url, key=key, progress=False) as client:
        dataset = client.create_dataset(
            scenes.images, scenes.points, truth=scenes.truth, name="scenes"
        )
        job = client.train(dataset, preset="demo", seed=7, overrides=OVERRIDES)
        job = client.wait(job, timeout=600)
        first, second, third, *_ = client.review(job)
        client.accept(first)
        client.reject(second)
        client.choose(third, 0)
        client.wait_for_export(client.create_export(job, "coco"))
        client.set_alias("best", job.model_id)
        names = {"dataset": dataset.id, "job": job.id, "model": job.model_id}
    asked = {path: get(url + path.format(**names), key) for path in PATHS}
    return {**names, "key": key, "answers": asked}


def get(address: str, key: str) -> Any:
    request = urllib.request.Request(address, headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def pack(data: Path, target: Path) -> None:
    """Write the folder as an archive, with the database in one file and no caches of images."""
    time.sleep(1)
    with contextlib.closing(sqlite3.connect(data / "sapnet.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("VACUUM")
    shutil.rmtree(data / "cache", ignore_errors=True)
    with tarfile.open(target, "w:xz", preset=9) as archive:
        archive.add(data, "var")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
