"""What makes a version of a data set differ from its parent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import AcceptanceRule, JobKind

MOST = 2**63 - 1
"""The greatest id that there may be."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The range that some ids are in, both ends included."""

    low: int
    high: int

    def shift(self, taken: "Ids | None") -> int:
        """Return what is to be added to these ids so that none is among those that are taken."""
        if taken is None or self.high < taken.low or self.low > taken.high:
            return 0
        above = taken.high + 1 - self.low
        return above if self.high + above <= MOST else taken.low - 1 - self.high

    def joined(self, other: "Ids | None") -> "Ids":
        """Return the range that has both."""
        return self if other is None else Ids(min(self.low, other.low), max(self.high, other.high))

    def moved(self, by: int) -> "Ids":
        """Return the range of the ids with a number added to each."""
        return Ids(self.low + by, self.high + by)


@dataclass(frozen=True)
class Reviewed:
    """A job with a review that a version is made from.

    Attributes:
        ids: of its masks; None where it has none.
        rules: that accepted some of its masks.
    """

    id: str
    kind: JobKind
    ids: Ids | None
    rules: tuple[AcceptanceRule, ...] = ()


@dataclass(frozen=True)
class AddedImages:
    """Another data set whose images a version takes in.

    Attributes:
        annotation_ids: of its annotations; None where it has none.
        image_shift: is added to the id of each of its images.
        classes: id in the version of each of its classes.
    """

    id: str
    bytes: int
    annotation_ids: Ids | None
    image_shift: int
    classes: Mapping[int, int]


@dataclass(frozen=True)
class Classes:
    """The classes of a version.

    Attributes:
        names: by id, in order.
        ids: id in the version of each class of the parent that is another there, or None where its
            annotations are left out.
    """

    names: Mapping[int, str]
    ids: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What makes a version differ from its parent.

    Attributes:
        name: of the version; None for the parent's with the next number.
        reviews: jobs on the parent whose masks were reviewed.
        accepted_as: "masks" or "points", what accepted masks become.
        without_images: ids of images that are left out, with their annotations.
        added: other data sets whose images are taken in, with their annotations.
    """

    classes: Classes
    name: str | None = None
    reviews: tuple[Reviewed, ...] = ()
    accepted_as: str = "masks"
    without_images: frozenset[int] = frozenset()
    added: tuple[AddedImages, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


def ids_of(session: Session, column: Any, *where: Any) -> Ids | None:
    """Return the range of the ids in a column; None where no row fits."""
    low, high = session.execute(select(func.min(column), func.max(column)).where(*where)).one()
    return None if low is None else Ids(low, high)
