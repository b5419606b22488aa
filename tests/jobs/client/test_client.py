"""The client's methods against the real app, with and without an event loop."""

import asyncio
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import sapnet_client
from app.auth import keys
from app.auth.keys import Scope
from app.db.session import Database
from sapnet_client import (
    AsyncClient,
    Client,
    Conflict,
    Invalid,
    JobFailed,
    NotFound,
    Problem,
    Progress,
    Segmentation,
    StillRunning,
    Unauthorized,
)
from sapnet_client.hub import Hub
from sapnet_client.types import Job

Photos = tuple[Path, Path]


@pytest.mark.slow
def test_from_images_to_masks(client: Client, photos: Photos, tmp_path: Path) -> None:
    dataset = client.create_dataset(*photos)
    assert (dataset.name, dataset.status) == ("photos", "ready")
    assert (dataset.images, dataset.annotations) == (3, 6)
    assert [c.name for c in dataset.categories] == ["cell"]
    assert [i.file_name for i in client.images(dataset)] == ["a.png", "b.png", "deep/c.png"]
    assert client.image_bytes(dataset, 1) == (photos[0] / "a.png").read_bytes()

    plan = client.plan_training(dataset, preset="demo", overrides={"train.epochs": 1})
    assert (plan.preset, list(client.jobs())) == ("demo", [])
    assert plan.estimate.low < plan.estimate.total < plan.estimate.high
    job = client.train(dataset, preset="demo", seed=3, overrides={"train.epochs": 1})
    done = client.wait(job, timeout=60)
    assert done.succeeded
    assert (done.method, done.preset, done.seed) == ("sapnet++", "demo", 3)
    masks = list(client.pseudo_masks(done))
    assert [m.id for m in masks] == [10, 11, 20, 21, 30, 31]
    assert masks[0].segmentation.array().shape == (30, 40)
    assert masks[0].segmentation.array().sum() == masks[0].area
    assert all(m.quality >= 0.5 for m in client.pseudo_masks(done, min_quality=0.5))
    assert [m.id for m in client.pseudo_masks(done, image_id=2)] == [20, 21]
    (first, *_) = client.pseudo_masks(done, detail=True)
    assert first.selected is not None

    assert client.metrics(done).seconds == {"train": 1.0}
    assert "a log line of the trainer" in client.logs(done)
    assert client.gallery(done).startswith(b"\x89PNG")
    assert [j.id for j in client.jobs(dataset=dataset)] == [done.id]
    path = client.download_checkpoint(done, tmp_path / "results")
    assert path.parent == tmp_path / "results"
    assert path.name == f"model-{done.id}.pt"
    assert path.read_bytes().startswith(b"weights of seed 3")
    assert done.model_id is not None
    assert client.model(done.model_id).size == path.stat().st_size
    assert [m.id for m in client.models()] == [done.model_id]
    as_file = client.download_model(done.model_id, tmp_path / "mine.pt")
    assert as_file == tmp_path / "mine.pt"
    with pytest.raises(Conflict):
        client.delete_dataset(dataset)
    client.delete_dataset(dataset, force=True)
    assert list(client.datasets()) == []


@pytest.mark.slow
def test_without_a_loop_and_with_one(worked: str, photos: Photos, tmp_path: Path) -> None:
    async def all_of_it() -> tuple[Job, list[Any], Path, list[str]]:
        async with AsyncClient(worked, progress=False) as client:
            job = await client.train(await client.create_dataset(*photos))
            seen = [event.type async for event in client.events(job)]
            done = await client.wait(job)
            masks = [mask async for mask in client.pseudo_masks(done)]
            return done, masks, await client.download_checkpoint(done, tmp_path / "a"), seen

    done, masks, path, seen = asyncio.run(all_of_it())
    assert (seen[0], seen[-1]) == ("created", "end")
    with Client(worked, progress=False) as client:
        assert client.job(done) == done
        assert list(client.pseudo_masks(done)) == masks
        assert client.download_checkpoint(done, tmp_path / "b").read_bytes() == path.read_bytes()


def test_both_have_the_same_methods() -> None:
    asynchronous = {
        name: it
        for name, it in inspect.getmembers(Hub, inspect.isfunction)
        if not name.startswith("_")
    }
    blocking = {
        name: it
        for name, it in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    }
    assert blocking.keys() == asynchronous.keys()
    for name, method in asynchronous.items():
        assert inspect.signature(blocking[name]) == inspect.signature(method)
        many = inspect.isasyncgenfunction(method) or "AsyncGenerator" in str(
            inspect.signature(method).return_annotation
        )
        assert many != inspect.iscoroutinefunction(method), name


@pytest.mark.slow
@pytest.mark.parametrize("as_", ["files", "archive", "documents"])
def test_other_ways_to_say_it(client: Client, photos: Photos, tmp_path: Path, as_: str) -> None:
    folder, points = photos
    images = [folder / "a.png", folder / "b.png", folder / "deep" / "c.png"]
    if as_ == "archive":
        made = client.create_dataset(
            shutil.make_archive(str(tmp_path / "x"), "tar", folder), points
        )
        assert made.name == "x"
    elif as_ == "files":
        made = client.create_dataset(images, points, name="mine", truth=None)
        assert made.name == "mine"
    else:
        document = json.loads(points.read_text())
        made = client.create_dataset(folder, document, parent=client.create_dataset(*photos))
        assert made.parent_id is not None
    assert (made.images, made.annotations) == (3, 6)


@pytest.mark.slow
def test_points_of_labelme(client: Client, photos: Photos) -> None:
    """Its files lie beside the images."""
    folder, points = photos
    document = json.loads(points.read_text())
    for image in document["images"]:
        shapes = [
            {"label": "cell", "shape_type": "point", "points": [a["point"]]}
            for a in document["annotations"]
            if a["image_id"] == image["id"]
        ]
        name = Path(image["file_name"])
        size = {"imageWidth": 40, "imageHeight": 30}
        labelme = {"version": "5.5.0", "imagePath": name.name, "shapes": shapes, **size}
        (folder / name.with_suffix(".json")).write_text(json.dumps(labelme))
    dataset = client.create_dataset(folder, folder)
    assert (dataset.images, dataset.annotations) == (3, 6)
    assert [c.name for c in dataset.categories] == ["cell"]


@pytest.mark.slow
def test_everything_that_is_wrong_is_said(client: Client, photos: Photos) -> None:
    folder, points = photos
    document = json.loads(points.read_text())
    document["annotations"][0]["point"] = [999, 999]
    document["annotations"][1]["image_id"] = 77
    with pytest.raises(Invalid) as caught:
        client.create_dataset(folder, document)
    assert caught.value.status == 422
    assert caught.value.slug == "invalid-input"
    assert len(caught.value.errors) >= 2
    for fault in caught.value.errors:
        assert fault.pointer in str(caught.value)
        assert fault.detail in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no folder"):
        client.create_dataset(folder / "nowhere", points)
    with pytest.raises(NotFound, match="nobody"):
        client.job("nobody")
    with pytest.raises(Problem, match="method"):
        client.train(client.create_dataset(*photos), method="magic")


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--fail",)])
def test_a_job_that_fails(client: Client, photos: Photos, trainer: Any) -> None:
    job = client.train(client.create_dataset(*photos))
    with pytest.raises(JobFailed) as caught:
        client.wait(job)
    assert caught.value.job.state == "failed"
    assert "non_finite_loss" in str(caught.value)
    assert "a log line of the trainer" in str(caught.value)
    assert client.wait(job, check=False).state == "failed"


@pytest.mark.slow
def test_no_longer_than_asked(server: str, photos: Photos) -> None:
    with Client(server, progress=False) as client:
        job = client.train(client.create_dataset(*photos))
        with pytest.raises(StillRunning, match="queued"):
            client.wait(job, timeout=0.3)
        assert client.cancel(job).state == "cancelled"
        assert client.wait(job, check=False).reason == client.job(job).reason


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--steps", "4", "--sleep", "0.1")])
def test_progress_is_told(worked: str, photos: Photos, trainer: Any) -> None:
    told: list[Progress] = []
    with Client(worked, progress=told.append) as client:
        client.wait(client.train(client.create_dataset(*photos)))
    assert {"queued", "train"} <= {p.stage for p in told}
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].over
    assert told[-1].done == 1
    assert not any(p.over for p in told[:-1])


@pytest.mark.slow
def test_where_events_cannot_be_had(worked: str, photos: Photos) -> None:
    """A proxy that knows no streams: the job is asked for instead."""

    class NoEvents(httpx2.HTTPTransport):
        asked = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/events"):
                NoEvents.asked += 1
                return httpx2.Response(200, text="a page of the proxy's own")
            return super().handle_request(request)

    http = httpx2.Client(base_url=worked, transport=NoEvents(), timeout=60)
    with Client(http=http, progress=False) as client:
        assert client.wait(client.train(client.create_dataset(*photos)), timeout=90).succeeded
    assert NoEvents.asked >= 1


@pytest.mark.slow
def test_a_key(server: str, database: Database) -> None:
    with database.begin() as session:
        text, _ = keys.create(session, "anna", Scope.WRITE, name="", expires_at=None)
    with (
        Client(server, progress=False, patience=5) as stranger,
        pytest.raises(Unauthorized),
    ):
        list(stranger.jobs())
    with Client(server, key=text, progress=False) as client:
        assert list(client.jobs()) == []


def test_masks_and_arrays() -> None:
    array = np.zeros((5, 7), bool)
    array[1:3, 2:6] = True
    mask = Segmentation.of(array)
    assert mask.size == [5, 7]
    assert (mask.array() == array).all()
    assert (Segmentation.of(array.astype(np.uint8) * 255).array() == array).all()
    with pytest.raises(ValueError, match="two axes"):
        Segmentation.of(np.zeros((2, 2, 3)))
    rng = np.random.default_rng(3)
    for share in (0.0, 0.02, 0.5, 1.0):
        noise = np.repeat(rng.random((40, 30)) < share, 50, axis=0)
        assert (Segmentation.of(noise).array() == noise).all()


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        ([5, 7], ""),
        ([5, 7], "S"),
        ([5, 7], "o"),
        ([5, 7], "~~~"),
        ([5, 7], "é"),
        ([5, 7], "ooooooooooooooo0"),
        ([5, 7], "PPYo1"),
        ([5], "0"),
        ([-5, -7], "S1"),
        ([2**31 - 1, 2**31 - 1], "0"),
        ([True, 35], "S1"),
    ],
)
def test_a_segmentation_that_is_no_mask(size: list[int], counts: str) -> None:
    with pytest.raises(ValueError):
        Segmentation(size=size, counts=counts).array()


@pytest.mark.slow
def test_it_stands_alone() -> None:
    code = "import sapnet_client, sys; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "app", "sapnet", "worker", "fastapi", "numpy", "sqlalchemy"}
    assert Path(sapnet_client.__file__).with_name("py.typed").exists()
