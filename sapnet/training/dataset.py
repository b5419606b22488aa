"""The images of a run joined with their bags."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sapnet.data.images import ImageProblem, probe
from sapnet.data.pixels import Ranges
from sapnet.data.samples import ImageRecord, make_record
from sapnet.types import Bag, ImageInfo, PointSet

KEPT = 512
"""Records in memory, about 0.1 MB each with full bags; all of a small dataset's."""


class TrainingSet(Sequence[ImageRecord]):
    """The images as training wants them, each joined with its bags when it is asked for.

    The records asked for last are kept.
    """

    def __init__(
        self,
        points: PointSet,
        paths: Mapping[int, Path],
        bags: Mapping[int, list[Bag]],
        ranges: Ranges | None = None,
    ) -> None:
        """Join images, points and bags.

        Args:
            points: of the dataset.
            paths: of the images, by image id.
            bags: of the annotations, by image id.
            ranges: by which images of more than 8 bits are read.
        """
        self.points, self._paths, self._bags, self._ranges = points, paths, bags, ranges
        self._record = lru_cache(maxsize=KEPT)(self._make)

    def without(self, points: PointSet) -> "TrainingSet":
        """The training set of fewer images."""
        return TrainingSet(points, self._paths, self._bags, self._ranges)

    def unreadable(self) -> Iterator[tuple[ImageInfo, ImageProblem]]:
        """The images whose pixels cannot be read (any more), and why."""
        for info in self.points.images:
            try:
                probe(self._paths[info.id])
            except ImageProblem as error:
                yield info, error

    def __len__(self) -> int:
        return len(self.points.images)

    def __getitem__(self, index: Any) -> Any:
        return self._record(range(len(self))[index])

    def _make(self, index: int) -> ImageRecord:
        info = self.points.images[index]
        return make_record(
            info,
            self._paths[info.id],
            self.points.annotations_of[info.id],
            self._bags[info.id],
            self.points.label_of,
            self._ranges,
        )


def image_infos(records: Sequence[ImageRecord]) -> Sequence[ImageInfo]:
    """Ids and sizes of the images of records, of a training set without reading any bag."""
    if isinstance(records, TrainingSet):
        return records.points.images
    return [record.info for record in records]
