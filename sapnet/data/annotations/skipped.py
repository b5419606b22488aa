"""What a reader goes on without: annotations of a document that are left out, and told about."""

import re
from collections.abc import Mapping
from typing import Any

from sapnet.data.annotations.decoding import Issues
from sapnet.errors import ValidationIssue

_OF_ANNOTATION = re.compile(r"/annotations/(\d+)(?:/|$)")
_NAMED = 10


class TolerantIssues(Issues):
    """Issues of which those of a single annotation do not count: they leave it out.

    Attributes:
        total: of all, so that whoever adds one can tell that it was taken.
        skipped: the issues of annotations.
        indices: of the annotations that were left out, since `forget` was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped = Issues()
        self.indices: set[int] = set()
        self._others = Issues()

    def add(self, pointer: str, problem: str, hint: str) -> None:
        """Note one issue, see `ValidationIssue`."""
        self.total += 1
        match = _OF_ANNOTATION.match(pointer)
        if match is None:
            self._others.add(pointer, problem, hint)
        else:
            self.skip(int(match[1]), pointer, problem, hint)

    def refuse(self, pointer: str, problem: str, hint: str) -> None:
        """Note an issue that counts, wherever it is."""
        self.total += 1
        self._others.add(pointer, problem, hint)

    def skip(self, index: int, pointer: str, problem: str, hint: str) -> None:
        """Go on without an annotation, whether or not other issues count."""
        self.indices.add(index)
        self.skipped.add(pointer, problem, hint)

    def forget(self) -> None:
        """Of the annotations that come next, none was left out yet."""
        self.indices.clear()

    def listed(self) -> list[ValidationIssue]:
        """Those that count, as `Issues` has it."""
        return self._others.listed()


class Lacking:
    """Annotations without what most have: counted, and the first of them named."""

    def __init__(self) -> None:
        self.total = 0
        self._pointers: list[str] = []

    def add(self, pointer: str) -> None:
        """Count one more."""
        self.total += 1
        if self.total <= _NAMED:
            self._pointers.append(pointer)

    def issue(self, problem: str, hint: str) -> ValidationIssue:
        """All of them in one.

        Args:
            problem: what they lack, with {} for "3 annotations".
        """
        count = f"{self.total:,} annotation{'' if self.total == 1 else 's'}"
        more = f" and {self.total - _NAMED:,} more" if self.total > _NAMED else ""
        text = f"{problem.format(count)}: {', '.join(self._pointers)}{more}"
        return ValidationIssue(self._pointers[0], text, hint)


def what_figures_lack(truth: Mapping[str, Any], named: int = 3) -> str | None:
    """Say what AP is of where objects of a ground truth were left out; None where none was.

    Args:
        truth: as `read_truth` gives it.
        named: how many of what was left out are named, each with its reason.
    """
    if not truth["incomplete"]:
        return None
    images, lacking = len(truth["images"]), len(truth["incomplete"])
    text = f"the ground truth lacks the masks of some objects in {lacking} of {images} images: "
    reasons = [f"{i.pointer}: {i.problem}" for i in truth["left_out"][:named]]
    return "; ".join([f"{text}AP is that of the other images", *reasons])
