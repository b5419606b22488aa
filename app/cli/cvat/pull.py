"""A task's images and points, into a folder."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from app.cli.cvat.folder import STATE, TaskState, safe_name
from sapnet.utils.files import atomic_write, write_text

if TYPE_CHECKING:
    from cvat_sdk import Client as Cvat

POINTS, IMAGES = "points.xml", "images"
Report = Callable[[int, int], None]
"""Called with how many images there are of how many."""


class NothingToLearn(ValueError):
    """A task without points and boxes."""


def pull(cvat: "Cvat", host: str, task_id: int, folder: Path, report: Report) -> TaskState:
    """Bring a task into a folder: points as CVAT's own XML, and the images that have any.

    What is there already is not fetched again. The XML is what CVAT exports as "CVAT for images
    1.1", as far as it is about points and boxes.

    Raises:
        NothingToLearn: nobody has drawn a point or a box.
    """
    task = cvat.tasks.retrieve(task_id)
    labels = {label.id: label.name for label in task.get_labels()}
    shapes = [
        shape
        for shape in task.get_annotations().shapes
        if str(shape.type) in ("points", "rectangle") and shape.label_id in labels
    ]
    if not shapes:
        raise NothingToLearn(f"task {task_id} has no points and no rectangles: click on objects")
    meta = task.get_meta()
    named = _frames(meta)
    of_frame: dict[int, list[Any]] = {}
    for shape in shapes:
        of_frame.setdefault(shape.frame, []).append(shape)
    frames = {frame: named[frame] for frame in sorted(of_frame) if frame in named}
    for number, (frame, (name, _, _)) in enumerate(frames.items()):
        report(number, len(frames))
        path = folder / IMAGES / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            data = task.get_frame(frame, quality="original").read()
            with atomic_write(path) as file:
                file.write(data)
    report(len(frames), len(frames))
    document = "".join(_xml(labels, frames, of_frame))
    write_text(folder / POINTS, document)
    state = TaskState(host, task_id)
    if (folder / STATE).exists():
        state = TaskState.read(folder)
    digest = hashlib.sha256(document.encode()).hexdigest()
    if state.points != digest:
        state.points, state.dataset, state.job = digest, None, None
    state.host, state.task = host, task_id
    state.labels = {name: id_ for id_, name in labels.items()}
    state.frames = {name: frame for frame, (name, _, _) in frames.items()}
    state.write(folder)
    return state


def _frames(meta: Any) -> dict[int, tuple[str, int, int]]:
    """Number of a frame -> its file's name, width and height; deleted ones are left out."""
    deleted, frames = set(meta.deleted_frames or ()), list(meta.frames or ())
    taken: set[str] = set()
    usable: dict[int, tuple[str, int, int]] = {}
    for number in range(meta.size):
        frame = frames[min(number, len(frames) - 1)]
        name = safe_name(frame.name, number, taken)
        taken.add(name.casefold())
        if number not in deleted:
            usable[number] = name, frame.width, frame.height
    return usable


def _xml(
    labels: dict[int, str], frames: dict[int, tuple[str, int, int]], shapes: dict[int, list[Any]]
) -> Iterable[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>\n'
    yield "<meta><task><labels>"
    for name in labels.values():
        text = quoteattr(name)[1:-1].replace("<", "&lt;")
        yield f"<label><name>{text}</name></label>"
    yield "</labels></task></meta>\n"
    for frame, (name, width, height) in frames.items():
        yield f'<image id="{frame}" name={quoteattr(name)} width="{width}" height="{height}">\n'
        for shape in shapes[frame]:
            yield _element(shape, labels[shape.label_id])
        yield "</image>\n"
    yield "</annotations>\n"


def _element(shape: Any, label: str) -> str:
    common = f"label={quoteattr(label)}"
    if shape.get("group"):
        common += f' group_id="{shape.group}"'
    if str(shape.type) == "points":
        pairs = zip(shape.points[::2], shape.points[1::2], strict=False)
        text = ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs)
        return f'<points {common} points="{text}"/>\n'
    left, top, right, bottom = shape.points[:4]
    corners = f'xtl="{left:.2f}" ytl="{top:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}"'
    return f'<box {common} {corners} rotation="{shape.get("rotation") or 0:g}"/>\n'
