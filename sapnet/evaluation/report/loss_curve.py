"""The losses of a training at bounded length, kept on disk for a run that is resumed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.utils.files import write_text

MOST = 240
"""Points of a curve; of a longer training each is the mean over its share of the steps."""


class LossHistory:
    """The mean losses of each of `MOST` equal parts of a training, written whenever one is full.

    A resumed run goes on from its checkpoint, which is older than the last point: what lies behind
    the first step that it adds is forgotten. The part that this falls into is then the mean of the
    steps that were done since.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._points: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def add(self, step: int, of: int, losses: Mapping[str, float]) -> None:
        """Add the losses of one step, all finite, by name.

        Args:
            step: from 1 to `of`, which may change on the way.
        """
        while self._points and self._points[-1]["step"] * of >= step * self._points[-1]["of"]:
            self._points.pop()
        part = _part(step, of)
        if not self._points or self._points[-1]["part"] != part or self._points[-1]["of"] != of:
            self._points.append({"part": part, "count": {}, "sum": {}})
        point = self._points[-1]
        point |= {"step": step, "of": of}
        for name, value in losses.items():
            point["sum"][name] = point["sum"].get(name, 0.0) + value
            point["count"][name] = point["count"].get(name, 0) + 1
        if step == of or _part(step + 1, of) != part:
            self.save()

    def save(self) -> None:
        """Write it, whole or not at all."""
        write_text(self._path, json.dumps(self._points))

    def means(self) -> list[dict[str, Any]]:
        """[{"step", "losses": {name: mean}}], in the order of the steps.

        A step stands for the part that it is the last of, and counts in the steps of the end.
        """
        end = self._points[-1]["of"] if self._points else 0
        return [
            {
                "step": round(point["step"] * end / point["of"]),
                "losses": {n: round(s / point["count"][n], 5) for n, s in point["sum"].items()},
            }
            for point in self._points
        ]


def _part(step: int, of: int) -> int:
    return (step - 1) * MOST // of if of > MOST else step - 1
