"""The identity of a work folder: a checkpoint must never be taken for that of another run."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sapnet.errors import InvalidConfig
from sapnet.utils.files import write_text

NAME = "run.json"
SHOWN = 3
_MADE = ("train", "result", "pixel_ranges.json", "proposals.json", "set_aside.json", NAME)
"""What a run makes in its folder, but for its preset and its cache of proposals."""


class OtherRun(InvalidConfig):
    """The folder is another run's."""


def check_run_identity(workdir: Path, run: Mapping[str, Any]) -> None:
    """Note what defines this run in its folder; the same run started again finds its own note.

    Args:
        run: values that JSON can hold, nested as one likes.

    Raises:
        OtherRun: the folder is another run's; names what differs.
    """
    path = workdir / NAME
    current = dict(_flat(json.loads(json.dumps(run))))
    if not path.exists():
        write_text(path, json.dumps(run, indent=2) + "\n")
        return
    stored = dict(_flat(json.loads(path.read_text())))
    names = [n for n in {**stored, **current} if stored.get(n) != current.get(n)]
    if names:
        few = ", ".join(f"{n} was {stored.get(n)}, not {current.get(n)}" for n in names[:SHOWN])
        more = f" (and {len(names) - SHOWN} more)" if len(names) > SHOWN else ""
        raise OtherRun(
            f"the folder {workdir} holds another run: {few}{more}; "
            "take another folder, or remove this one"
        )


def remove_run(workdir: Path) -> None:
    """Remove what a run has made in its folder; its note of itself goes last."""
    for name in _MADE:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"train": {"epochs": 6}} -> ("train.epochs", 6)."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
