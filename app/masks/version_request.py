"""A version of a data set that somebody asks for: checked, and turned into a `Change`."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.datasets.schemas import DatasetOut
from app.datasets.service import get as get_dataset
from app.db.models import Annotation, Category, Dataset, DatasetStatus, Image
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.masks.corrections import check_decided, names_of, reviewed, together
from app.masks.schemas import VersionIn
from app.masks.version_change import AddedImages, Change, Classes, ids_of
from app.masks.versions import write_version

T = TypeVar("T")
_BATCH = 500  # below SQLite's limit on bound values
_EXAMPLES = 10


def create(database: Database, dataset_id: str, wanted: VersionIn) -> DatasetOut:
    """Make a version of a data set, and return it.

    Raises:
        NotFound: there is no such data set, or job.
        Conflict: a data set is not ready, a job has no masks, or no annotation would be left.
        Invalid: with every issue of the request.
    """
    with database.read() as session:
        parent = _ready(session, dataset_id)
        checking = _Checking(session, parent, wanted, [])
        change = checking.change()
        if checking.issues:
            raise Invalid(checking.issues)
        ids = ids_of(session, Annotation.annotation_id, Annotation.dataset_id == parent.id)
    return write_version(database, parent, ids, change)


def _ready(session: Session, dataset_id: str) -> Dataset:
    dataset = get_dataset(session, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    return dataset


@dataclass
class _Checking:
    """Turns a request into a change, and notes what is wrong with it."""

    session: Session
    parent: Dataset
    wanted: VersionIn
    issues: list[ValidationIssue]

    def change(self) -> Change:
        """The change. Where there are issues it is none to be made."""
        wanted = self.wanted
        if not wanted.model_dump(exclude_defaults=True, exclude={"name", "accepted_as"}):
            self._issue(
                "", "nothing is to be changed", "name images, classes, data sets or reviews"
            )
        jobs = together(self.session, wanted.reviews, "/reviews") if wanted.reviews else []
        if jobs and jobs[0].dataset_id != self.parent.id:
            self._issue("/reviews", "the jobs are on another data set", "name jobs of this one")
        if jobs:
            check_decided(self.session, jobs)
        self._check_images()
        classes = self._classes()
        others = [_ready(self.session, id_) for id_ in dict.fromkeys(wanted.add_datasets)]
        names, added = self._added(others, classes)
        return Change(
            classes=Classes(names, classes.ids),
            name=wanted.name,
            reviews=tuple(reviewed(self.session, job) for job in jobs),
            accepted_as=wanted.accepted_as,
            without_images=frozenset(wanted.remove_images),
            added=tuple(added),
        )

    def _issue(self, pointer: str, detail: str, hint: str) -> None:
        self.issues.append(ValidationIssue("body", pointer, detail, hint))

    def _check_images(self) -> None:
        ids = self.wanted.remove_images
        there: set[int] = set()
        for start in range(0, len(ids), _BATCH):
            some = Image.image_id.in_(ids[start : start + _BATCH])
            query = select(Image.image_id).where(Image.dataset_id == self.parent.id, some)
            there.update(self.session.scalars(query))
        for number, id_ in enumerate(ids):
            if id_ not in there:
                detail = f"the data set has no image {id_}"
                self._issue(f"/remove_images/{number}", detail, "see /datasets/{id}/images")
        if len(there) == self.parent.images and not self.wanted.add_datasets:
            self._issue("/remove_images", "no image would be left", "keep some")

    def _classes(self) -> Classes:
        """The classes of the version, but for those that other data sets bring."""
        wanted, names = self.wanted, names_of(self.session, self.parent.id)
        gone = [merged.id for merged in wanted.merge_classes] + wanted.remove_classes
        asked = [
            *((f"/rename_classes/{n}/id", c.id) for n, c in enumerate(wanted.rename_classes)),
            *((f"/merge_classes/{n}/id", c.id) for n, c in enumerate(wanted.merge_classes)),
            *((f"/merge_classes/{n}/into", c.into) for n, c in enumerate(wanted.merge_classes)),
            *((f"/remove_classes/{n}", id_) for n, id_ in enumerate(wanted.remove_classes)),
        ]
        for pointer, id_ in asked:
            if id_ not in names:
                self._issue(pointer, f"the data set has no class {id_}", "take one of `categories`")
            elif id_ in gone and pointer.endswith("into"):
                self._issue(pointer, f"the class {id_} is to go itself", "name one that stays")
        for id_ in _repeated([*gone, *(renamed.id for renamed in wanted.rename_classes)]):
            self._issue("", f"two things are asked for about the class {id_}", "ask for one")
        ids: dict[int, int | None] = {merged.id: merged.into for merged in wanted.merge_classes}
        ids |= dict.fromkeys(wanted.remove_classes)
        kept = {id_: name for id_, name in names.items() if id_ not in ids}
        kept |= {renamed.id: renamed.name for renamed in wanted.rename_classes}
        for number, new in enumerate(wanted.add_classes):
            id_ = _free(kept, names) if new.id is None else new.id
            if id_ in kept or id_ in names:
                detail = f"there is a class {id_} already"
                self._issue(f"/add_classes/{number}/id", detail, "leave it out, or take another")
            kept[id_] = new.name
        for name in _repeated(kept.values()):
            if list(names.values()).count(name) < 2:
                self._issue("", f"two classes would be called {name!r}", "merge them instead")
        if not kept:
            self._issue("/remove_classes", "no class would be left", "keep one, or add one")
        return Classes(kept, ids)

    def _added(
        self, others: list[Dataset], classes: Classes
    ) -> tuple[dict[int, str], list[AddedImages]]:
        """The names of all classes by id, and other data sets with the ids that their rows get."""
        names = dict(classes.names)
        removed = set(self.wanted.remove_images)
        taken = ids_of(self.session, Image.image_id, Image.dataset_id == self.parent.id)
        before = [self.parent.id]
        added = []
        for number, other in enumerate(others):
            pointer = f"/add_datasets/{number}"
            if other.id == self.parent.id:
                self._issue(pointer, "it is the data set itself", "name another one")
                continue
            self._check_file_names(pointer, other, before, removed)
            before.append(other.id)
            of_names = {name: id_ for id_, name in names.items()}
            class_ids: dict[int, int] = {}
            used = self._used_classes(other)
            for id_, name in names_of(self.session, other.id).items():
                if name not in of_names:
                    if id_ not in used:
                        continue
                    of_names[name] = id_ if id_ not in names else _free(names, {})
                    names[of_names[name]] = name
                class_ids[id_] = of_names[name]
            ids = ids_of(self.session, Image.image_id, Image.dataset_id == other.id)
            of_annotations = Annotation.dataset_id == other.id
            annotations = ids_of(self.session, Annotation.annotation_id, of_annotations)
            shift = 0 if ids is None else ids.shift(taken)
            taken = taken if ids is None else ids.moved(shift).joined(taken)
            added.append(AddedImages(other.id, other.bytes, annotations, shift, class_ids))
        return names, added

    def _used_classes(self, dataset: Dataset) -> set[int]:
        """Ids of the classes that have annotations: others are not taken in."""
        query = select(Category.category_id).where(Category.dataset_id == dataset.id)
        return set(self.session.scalars(query.where(Category.annotations > 0)))

    def _check_file_names(
        self, pointer: str, other: Dataset, before: list[str], removed: set[int]
    ) -> None:
        """No two images of a data set have one file name."""
        one, two = aliased(Image), aliased(Image)
        query = (
            select(one.file_name, two.dataset_id, two.image_id)
            .join(two, two.file_name == one.file_name)
            .where(one.dataset_id == other.id, two.dataset_id.in_(before))
        )
        names = []
        for name, dataset_id, image_id in self.session.execute(query):
            if dataset_id != self.parent.id or image_id not in removed:
                names.append(name)
                if len(names) == _EXAMPLES:
                    break
        if names:
            detail = f"images are called as those that are there: {', '.join(names)}"
            self._issue(pointer, detail, "remove these from one of the two")


def _repeated(values: Iterable[T]) -> list[T]:
    return [value for value, count in Counter(values).items() if count > 1]


def _free(*ids: Iterable[int]) -> int:
    """The next id above all of these."""
    return max((id_ for some in ids for id_ in some), default=0) + 1
