"""Masks of a job, into the task that its points came from.

A mask's key is what it is: frame, label and runs. What is to be there is compared with what is
there, so a push that breaks off goes on, and one that is done again does nothing. What an earlier
push has sent and is wanted no more is removed where it is still as it was sent: what somebody has
changed in CVAT has another key, and stays.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.cli.cvat.folder import TaskState
from app.cli.cvat.pull import IMAGES, Report
from sapnet.data.exif import orientation_of
from sapnet.data.exporters.cvat import row_runs
from sapnet.data.orientation import upright_array

if TYPE_CHECKING:
    from cvat_sdk import Client as Cvat

    from sapnet_client import Client

AT_ONCE = 100  # masks in a request


class LabelRefused(ValueError):
    """A label that cannot hold masks, or is gone."""


class OtherImages(ValueError):
    """A job whose images are none of the task's."""


@dataclass(frozen=True)
class Shape:
    """A mask as CVAT has it.

    Attributes:
        points: runs, row by row in its box, background first; then left, top, right, bottom.
    """

    frame: int
    label: int
    points: tuple[int, ...]

    @property
    def key(self) -> str:
        """What it is, in few characters."""
        text = json.dumps([self.frame, self.label, self.points])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Pushed:
    """What a push has done: masks that are new, that were there, and that were removed."""

    created: int
    kept: int
    removed: int


def push(
    cvat: "Cvat",
    client: "Client",
    state: TaskState,
    folder: Path,
    job_id: str,
    report: Report,
    *,
    min_quality: float | None = None,
) -> Pushed:
    """Send a job's masks into the task.

    Args:
        min_quality: masks below it are left out.

    Raises:
        LabelRefused: a label of the task cannot hold masks.
        OtherImages: the job is of another data set.
    """
    task = cvat.tasks.retrieve(state.task)
    labels = {label.name: label for label in task.get_labels()}
    wanted = {s.key: s for s in shapes_of(client, state, folder, job_id, labels, min_quality)}
    present = {s.key: (s, model) for s, model in _masks_in(task)}
    new = [shape for key, shape in wanted.items() if key not in present]
    old = [
        model for key, (_, model) in present.items() if key in state.pushed and key not in wanted
    ]
    state.pushed = sorted({*state.pushed, *wanted})
    state.write(folder)  # before anything is sent: what is sent must be known to be ours
    for start in range(0, len(new), AT_ONCE):
        report(start, len(new))
        _update(task, [_request(shape) for shape in new[start : start + AT_ONCE]], "create")
    report(len(new), len(new))
    if old:
        from cvat_sdk import models

        _update(task, [models.LabeledShapeRequest(**m.to_dict()) for m in old], "delete")
    state.pushed = sorted(wanted)
    state.write(folder)
    return Pushed(len(new), len(wanted) - len(new), len(old))


def shapes_of(
    client: "Client",
    state: TaskState,
    folder: Path,
    job_id: str,
    labels: dict[str, Any],
    min_quality: float | None,
) -> Iterator[Shape]:
    """Yield the masks of a job that are neither rejected nor empty, of the task's frames."""
    job = client.job(job_id)
    dataset = client.dataset(job.dataset_id or "")
    names = {category.id: category.name for category in dataset.categories}
    images = ((image.id, image.file_name) for image in client.images(dataset))
    files = {id_: name for id_, name in images if name in state.frames}
    if not files:
        raise OtherImages(f"job {job_id!r}: none of its images is a frame of task {state.task}")
    for mask in client.pseudo_masks(job, min_quality=min_quality):
        name = files.get(mask.image_id)
        if name is None or mask.status == "rejected":
            continue
        orientation = orientation_of(folder / IMAGES / name)  # CVAT shows images upright
        shown = upright_array(mask.segmentation.array(), orientation)
        label = _label(labels, names[mask.category_id])
        if shown.any():
            yield Shape(state.frames[name], label, points_of(shown))


def _label(labels: dict[str, Any], name: str) -> int:
    label = labels.get(name)
    if label is None:
        raise LabelRefused(f"the task has no label {name!r} any more")
    kind = str(label.get("type") or "any")
    if kind not in ("any", "mask"):
        raise LabelRefused(
            f"the label {name!r} of the task is for shapes of type {kind} alone: set it to 'any'"
        )
    return int(label.id)


def _masks_in(task: Any) -> Iterator[tuple[Shape, Any]]:
    for model in task.get_annotations().shapes:
        if str(model.type) == "mask":
            points = tuple(int(value) for value in model.points)
            yield Shape(model.frame, model.label_id, points), model


def _request(shape: Shape) -> Any:
    from cvat_sdk import models

    return models.LabeledShapeRequest(
        type="mask",
        frame=shape.frame,
        label_id=shape.label,
        points=[float(value) for value in shape.points],
        occluded=False,
        source="auto",
    )


def _update(task: Any, shapes: Sequence[Any], action: str) -> None:
    from cvat_sdk import models
    from cvat_sdk.core.proxies.annotations import AnnotationUpdateAction

    data = models.PatchedLabeledDataRequest(shapes=list(shapes), tags=[], tracks=[])
    task.update_annotations(data, action=AnnotationUpdateAction(action))


def points_of(mask: Any) -> tuple[int, ...]:
    """CVAT's points of a mask (H, W) with a pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = (int(n) for n in (rows[0], rows[-1], columns[0], columns[-1]))
    inside = np.ascontiguousarray(mask[top : bottom + 1, left : right + 1])
    return (*row_runs(inside), left, top, right, bottom)
