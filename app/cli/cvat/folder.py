"""What is known of a task between the commands: a folder with its images, points and state."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from sapnet.utils.files import write_text

STATE = "task.json"


@dataclass
class TaskState:
    """A task, and what was made of it.

    Attributes:
        host: of CVAT.
        task: its id there.
        labels: name -> id there.
        frames: file name in the data set -> number of the frame.
        points: SHA-256 of the document that the data set was made of.
        dataset, job: their ids in the service.
        pushed: keys of masks that were sent into the task (`Shape.key`), and are still ours there
            as long as nobody has changed them.
    """

    host: str
    task: int
    labels: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    points: str | None = None
    dataset: str | None = None
    job: str | None = None
    pushed: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the state in a folder.

        Raises:
            FileNotFoundError: no task was pulled there.
        """
        try:
            document = json.loads((folder / STATE).read_text())
        except FileNotFoundError:
            detail = f"there is no task in {str(folder)!r}: sapnet-service cvat pull TASK first"
            raise FileNotFoundError(detail) from None
        names = set(cls.__dataclass_fields__)
        return cls(**{name: value for name, value in document.items() if name in names})

    def write(self, folder: Path) -> None:
        """Write the state, whole or not at all."""
        write_text(folder / STATE, json.dumps(asdict(self), indent=1))


def safe_name(name: str, frame: int, taken: set[str]) -> str:
    """The name of a frame's file below the folder of images: CVAT's own, where it may be one.

    Args:
        taken: names of other frames, in lower case: those of a video are all the same.
    """
    parts = name.replace("\\", "/").split("/")
    fits = all(part not in ("", ".", "..") and ":" not in part for part in parts)
    usable = "/".join(parts)
    if fits and usable.casefold() not in taken and "." in parts[-1] and name.isprintable():
        return usable
    numbered = f"frame_{frame:06d}"
    while f"{numbered}.png" in taken:  # another frame is called so
        numbered += "_"
    return f"{numbered}.png"
