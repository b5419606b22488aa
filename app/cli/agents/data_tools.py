"""Tools for data sets, trainings, models and exports."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from app.cli.agents.calls import Connect, plain, reporting, tool
from app.cli.agents.drawing import Shown, drawn, labelled
from app.cli.agents.folders import Folders
from sapnet.data.images import SUFFIXES, read_rgb
from sapnet_client import Dataset, Job, StillRunning

T = TypeVar("T")
LISTED = 500
"""File names in an answer."""
LOG_LINES = 15
Limit = Annotated[int, Field(ge=1, le=100, description="how many, the newest first")]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Ids become part of addresses: nothing that leads elsewhere."""
DatasetId = Annotated[str, Field(description="id of a data set", pattern=NAME)]
JobId = Annotated[str, Field(description="id of a job", pattern=NAME)]
ModelRef = Annotated[str, Field(description="id or alias of a model", pattern=NAME)]
Seconds = Annotated[
    float, Field(gt=0, le=3600, description="after so many it answers, and is called again")
]
Method = Annotated[str, Field(description="sapnet++, sapnet, mil; unlearned: box-rule, consensus")]
Preset = Annotated[str, Field(description="auto (chooses by machine and images), demo, cpu, gpu")]
Overrides = Annotated[
    dict[str, Any] | None, Field(description='settings by name, such as {"train.epochs": 6}')
]
FromModel = Annotated[
    str | None, Field(description="model whose weights it begins with", pattern=NAME)
]


class ImagePoint(BaseModel):
    """An object: a point on it, in pixels of its image."""

    file_name: str = Field(description="image, by its path from the folder")
    category: str = Field(description="name of the object's class")
    x: float = Field(ge=0)
    y: float = Field(ge=0)


class DataTools:
    """Tools for data sets, trainings, models and exports; each method is one.

    Args:
        connect: gives a client of the service.
        folders: that the user named.
    """

    def __init__(self, connect: Connect, folders: Folders) -> None:
        self._connect, self._folders = connect, folders

    @tool
    async def list_files(
        self,
        folder: Annotated[str | None, Field(description="None: those that may be read")] = None,
    ) -> dict[str, Any]:
        """List the folders that may be read, or the images and documents below one of them."""
        if folder is None:
            out = self._folders.out
            readable = [str(path) for path in self._folders.readable]
            return {"readable": readable, "written_to": None if out is None else str(out)}
        names = sorted(self._folders.tree(folder))
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        others = [name for name in names if name.lower().endswith((".json", ".xml", ".zip"))]
        return {
            "images": images[:LISTED],
            "documents": others[:LISTED],
            "images_in_all": len(images),
        }

    @tool
    async def show_image(
        self, path: Annotated[str, Field(description="image file in a readable folder")]
    ) -> Shown:
        """Show an image, with a scale in its pixels along the sides to read points off."""
        image = read_rgb(self._folders.existing(path))
        size = {"path": path, "width": image.shape[1], "height": image.shape[0]}
        return labelled([(size, drawn(image, side=1024))])

    @tool
    async def list_datasets(self, limit: Limit = 20) -> list[dict[str, Any]]:
        """List data sets."""
        async with self._connect(None) as client:
            return [plain(dataset) for dataset in await _first(client.datasets(), limit)]

    @tool
    async def list_jobs(
        self,
        state: Annotated[str | None, Field(description="queued, running, succeeded, …")] = None,
        dataset_id: DatasetId | None = None,
        limit: Limit = 20,
    ) -> list[dict[str, Any]]:
        """List jobs: trainings, imports, exports, predictions."""
        async with self._connect(None) as client:
            jobs = await _first(client.jobs(state=state, dataset=dataset_id), limit)
            return [_job(job) for job in jobs]

    @tool
    async def list_models(self, limit: Limit = 20) -> list[dict[str, Any]]:
        """List trained and imported models with their figures."""
        async with self._connect(None) as client:
            models = [plain(model) for model in await _first(client.models(), limit)]
        return [{k: v for k, v in model.items() if k not in ("meta", "sha256")} for model in models]

    @tool
    async def create_dataset(
        self,
        context: Context,
        images: Annotated[str, Field(description="readable folder of images, or a .zip there")],
        points_file: Annotated[
            str | None,
            Field(
                description="COCO with points, CVAT's XML, Label Studio's JSON, Labelme's folder"
            ),
        ] = None,
        points: Annotated[
            list[ImagePoint] | None, Field(description="in place of a file: one an object")
        ] = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Send images and one point per object to the service. What is wrong is listed."""
        if (points_file is None) == (points is None):
            raise ValueError("give points_file or points, one of them")
        source = self._folders.existing(images)
        if source.is_dir():
            self._folders.tree(images)
        given: Any = _coco(points) if points is not None else self._points(points_file or "")
        async with reporting(self._connect, context) as client:
            return _dataset(await client.create_dataset(source, given, name=name))

    def _points(self, path: str) -> Path:
        file = self._folders.existing(path)
        if file.is_dir():
            self._folders.tree(path)
        return file

    @tool
    async def estimate_training(
        self,
        dataset_id: DatasetId,
        method: Method = "sapnet++",
        preset: Preset = "auto",
        overrides: Overrides = None,
        from_model: FromModel = None,
    ) -> dict[str, Any]:
        """Check a training and say how long it takes, with which preset and why; starts nothing."""
        options: dict[str, Any] = {"method": method, "preset": preset, "overrides": overrides}
        async with self._connect(None) as client:
            plan = await client.plan_training(dataset_id, from_model=from_model, **options)
        return dict(plain(plan))

    @tool
    async def train(
        self,
        dataset_id: DatasetId,
        method: Method = "sapnet++",
        preset: Preset = "auto",
        overrides: Overrides = None,
        from_model: FromModel = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Start a training: masks for all points, and a segmenter. wait_for_job follows it."""
        async with self._connect(None) as client:
            job = await client.train(
                dataset_id,
                method=method,
                preset=preset,
                overrides=overrides,
                from_model=from_model,
                seed=seed,
            )
        return _job(job)

    @tool
    async def wait_for_job(
        self, context: Context, job_id: JobId, seconds: Seconds = 300
    ) -> dict[str, Any]:
        """Wait until a job is over; its progress comes as notifications. `over` says whether."""
        async with reporting(self._connect, context) as client:
            try:
                job = await client.wait(job_id, timeout=seconds, check=False)
            except StillRunning:
                job = await client.job(job_id)
            log = "" if job.succeeded or not job.over else await client.logs(job, tail=LOG_LINES)
        return _job(job) | ({"log": log} if log else {})

    @tool
    async def job_status(self, job_id: JobId) -> dict[str, Any]:
        """Say how far a job is; of a finished training, its figures."""
        async with self._connect(None) as client:
            return _job(await client.job(job_id))

    @tool
    async def cancel_job(self, job_id: JobId) -> dict[str, Any]:
        """Stop a job."""
        async with self._connect(None) as client:
            return _job(await client.cancel(job_id))

    @tool
    async def export_masks(
        self,
        context: Context,
        job_id: JobId,
        format: Annotated[
            str,
            Field(description="coco, coco-polygons, yolo-seg, voc, png, label-studio or cvat"),
        ] = "coco",
        min_quality: Annotated[float, Field(ge=0, le=1)] = 0.0,
        images: Annotated[bool, Field(description="with the images")] = False,
    ) -> dict[str, Any]:
        """Write the masks of a training to a file in the folder that the user named by --out."""
        out = self._folders.writable()
        async with reporting(self._connect, context) as client:
            made = await client.create_export(
                job_id, format, min_quality=min_quality, images=images
            )
            made = await client.wait_for_export(made)
            path = await client.download_export(made, f"{out / made.id}/")
        return {"file": str(path), "report": made.report}

    @tool
    async def download_model(
        self,
        context: Context,
        model: ModelRef,
        format: Annotated[str, Field(description="pt, safetensors or onnx")] = "pt",
    ) -> dict[str, Any]:
        """Write a model to a file in the folder that the user named by --out."""
        out = self._folders.writable()
        async with reporting(self._connect, context) as client:
            into = out / (await client.model(model)).id
            path = await client.download_model(model, f"{into}/", format=format)
        return {"file": str(path)}

    @tool
    async def delete_dataset(
        self,
        dataset_id: DatasetId,
        force: Annotated[bool, Field(description="with its jobs, masks and models")] = False,
    ) -> str:
        """Delete a data set for good."""
        async with self._connect(None) as client:
            await client.delete_dataset(dataset_id, force=force)
        return f"The data set {dataset_id} is deleted."

    @tool
    async def delete_model(self, model: ModelRef) -> str:
        """Delete an imported model for good."""
        async with self._connect(None) as client:
            await client.delete_model(model)
        return f"The model {model} is deleted."


async def _first(things: AsyncIterator[T], limit: int) -> list[T]:
    results: list[T] = []
    async for thing in things:
        results.append(thing)
        if len(results) >= limit:
            break
    return results


def _job(job: Job) -> dict[str, Any]:
    return dict(plain(job)) | {"over": job.over, "succeeded": job.succeeded}


def _dataset(dataset: Dataset) -> dict[str, Any]:
    values = dict(plain(dataset))
    return values | {"report": plain(dataset.report)}


def _coco(points: list[ImagePoint]) -> dict[str, Any]:
    """Points as a COCO document with ids of its own."""
    names = list(dict.fromkeys(point.file_name for point in points))
    categories = list(dict.fromkeys(point.category for point in points))
    images, classes = dict(zip(names, count(1))), dict(zip(categories, count(1)))
    return {
        "images": [{"id": number, "file_name": name} for name, number in images.items()],
        "categories": [{"id": number, "name": name} for name, number in classes.items()],
        "annotations": [
            {
                "id": number,
                "image_id": images[point.file_name],
                "category_id": classes[point.category],
                "point": [point.x, point.y],
            }
            for number, point in enumerate(points, 1)
        ],
    }
