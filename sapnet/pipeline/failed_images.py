"""Images that fail in a stage are recorded with their error, and the run goes on without them.

One damaged file among thousands must not cost a night of training; many of them mean that
something else is wrong, and the run says so instead of training on what is left.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sapnet.errors import SapnetError
from sapnet.pipeline.contract import allowed_failures
from sapnet.pipeline.events import EventSink, ImageSetAside
from sapnet.pipeline.image_failure import FailedImage, blames_image
from sapnet.types import ImageInfo, PointSet
from sapnet.utils import distributed
from sapnet.utils.files import write_text

NAMED = 3  # in a message; the report has them all


class TooManyBadImages(SapnetError):
    """More images failed than a run may do without."""

    reason = "too_many_bad_images"


class FailedImages:
    """The images that failed, kept in a file, so that a resumed run does without them too.

    share: how many of the `images` may fail, in [0, 1]; at least one where it is above 0, and never
    all of them.
    """

    def __init__(self, path: Path, images: int, share: float, emit_event: EventSink) -> None:
        self.images, self._share = images, share
        self._path, self._emit_event = path, emit_event
        self._entries: dict[int, FailedImage] = {}
        self.read()

    @property
    def allowed(self) -> int:
        """The number of images that may fail."""
        return allowed_failures(self.images, self._share)

    def read(self) -> None:
        """Take up what an earlier attempt, or the main process, has noted."""
        if self._path.exists():
            entries = [FailedImage(**entry) for entry in json.loads(self._path.read_bytes())]
            self._entries = {entry.image_id: entry for entry in entries}

    @property
    def entries(self) -> list[FailedImage]:
        """In the order in which they failed."""
        return list(self._entries.values())

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._entries

    def add(self, info: ImageInfo, stage: str, error: Exception) -> None:
        """Record an image.

        Raises:
            TooManyBadImages: it is one too many.
        """
        if info.id in self:
            return
        entry = FailedImage.of(info, stage, error)
        self._entries[info.id] = entry
        self._emit_event(ImageSetAside(**asdict(entry)))
        self._check(early=entry.is_early)
        self._write(self.entries)

    def take(self, entries: Iterable[FailedImage]) -> None:
        """Take over images that failed elsewhere; whoever gives them has told of them.

        Raises:
            TooManyBadImages: they are too many.
        """
        new = [entry for entry in entries if entry.image_id not in self]
        if new:
            self._entries |= {entry.image_id: entry for entry in new}
            self._check(early=True)
            self._write(self.entries)

    def _check(self, *, early: bool) -> None:
        if len(self._entries) > self.allowed:
            # started again the run looks anew, but at what its checkpoint was made from
            self._write([e for e in self.entries if e.is_early and not early])
            raise TooManyBadImages(
                f"{self.summary()}; no more than {self.allowed} may fail. Repair or leave out "
                "these images, or raise the share that may fail (SAPNET_MAX_BAD_IMAGES)"
            )

    def _write(self, entries: list[FailedImage]) -> None:
        if distributed.is_main():
            write_text(self._path, json.dumps([asdict(entry) for entry in entries]))

    @contextmanager
    def catch(self, info: ImageInfo, stage: str) -> Iterator[None]:
        """Record the image if the block fails, unless it is not the image's fault."""
        try:
            yield
        except Exception as error:
            if not blames_image(error):
                raise
            self.add(info, stage, error)

    def without(self, points: PointSet, *, early: bool = False) -> PointSet:
        """The points without those of failed images.

        Args:
            points: of the dataset.
            early: only without images that failed before training began, whose order of draws is a
                function of how many there are.
        """
        out = {e.image_id for e in self.entries if not early or e.is_early}
        return points.without(out)

    def summary(self) -> str:
        """The number of failed images, and the first ones by name."""
        entries = self.entries
        few = "; ".join(f"{entry}" for entry in entries[:NAMED])
        more = f"; and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
        return f"{len(entries)} of {self.images} images failed and were left out: {few}{more}"
