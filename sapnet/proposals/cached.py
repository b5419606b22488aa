"""The bags of a run's images: from the store, or made and put there."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from sapnet.data.images import ImageProblem, read_rgb
from sapnet.data.pixels import Ranges
from sapnet.data.value_ranges import dataset_ranges
from sapnet.errors import ATTEMPT_FAILED, SapnetError, is_out_of_memory
from sapnet.proposals.bags import bag_of, make_bags
from sapnet.proposals.base import ProposalGenerator
from sapnet.proposals.store import ProposalStore, key_of
from sapnet.types import CONFIRMED, Bag, ImageInfo, PointAnnotation, PointSet, Rle
from sapnet.utils.files import file_sha256

_LOST = "proposals that were made are not in the store any more"


class ProposalsLost(SapnetError):
    """Stored bags are gone, or damaged; the same run, started again, makes them again."""

    reason = ATTEMPT_FAILED


def populate_cache(
    folder: Path,
    generator: ProposalGenerator,
    points: PointSet,
    paths: Mapping[int, Path],
    max_proposals: int,
) -> Iterator[tuple[int, list[Bag]]]:
    """Make the bags of every image that the store lacks, and put them there.

    Yields:
        Image id and bags, image by image.

    Raises:
        ImageProblem: names the image.
    """
    ranges = dataset_ranges([paths[info.id] for info in points.images if info.id in paths])
    maker = CachedProposals(folder, generator, paths, max_proposals, ranges)
    for info, annotations in points:
        with naming(info):
            bags = maker(info, annotations)
        yield info.id, bags


class CachedProposals:
    """The bags of one image: from the store where they are in it, else made and put there.

    The bag of an annotation with a confirmed mask is this mask alone. The store holds what was
    proposed for its point all the same: a mask that is confirmed later, or that differs, sends no
    image through the generator again.
    """

    def __init__(
        self,
        folder: Path,
        generator: ProposalGenerator,
        paths: Mapping[int, Path],
        max_proposals: int,
        ranges: Ranges | None = None,
    ) -> None:
        """ranges: by which images of more than 8 bits are read."""
        self._store, self._generator = ProposalStore(folder), generator
        self._ranges = ranges or {}
        # Other levels of brightness are another image to a generator.
        levels = json.dumps(self._ranges, sort_keys=True) if self._ranges else ""
        self._fingerprint = generator.fingerprint() + levels
        self._paths, self._max_proposals = paths, max_proposals

    def __call__(self, info: ImageInfo, annotations: Sequence[PointAnnotation]) -> list[Bag]:
        """The bags of the annotations, in their order.

        Raises:
            ImageProblem: the image cannot be read. Besides what the generator raises.
        """
        return self.read(self.make(info, annotations), annotations)

    def make(self, info: ImageInfo, annotations: Sequence[PointAnnotation]) -> str:
        """Make the bags of an image and store them, where they are not stored yet.

        Returns:
            The key for `read`; "" where every annotation has a confirmed mask.

        Raises:
            ImageProblem: the image cannot be read. Besides what the generator raises.
        """
        path = self._paths.get(info.id)
        if path is None:
            raise ImageProblem("no file was given")
        try:
            content = file_sha256(path)
        except FileNotFoundError:
            raise ImageProblem("the file is missing") from None
        except OSError as error:
            if is_out_of_memory(error):
                raise
            raise ImageProblem(f"the file cannot be read: {error.strerror}") from error
        if annotations and all(a.mask is not None for a in annotations):
            return ""
        key = key_of(content, annotations, self._fingerprint, self._max_proposals)
        if key not in self._store:
            image = read_rgb(path, ranges=self._ranges)
            limit = self._max_proposals
            bags = make_bags(self._generator, image, info, annotations, max_proposals=limit)
            self._store.put(key, bags)
        return key

    def make_all(
        self,
        images: Iterable[tuple[ImageInfo, Sequence[PointAnnotation]]],
        *,
        one_by_one: bool = False,
    ) -> Iterator[tuple[ImageInfo, Callable[[], str]]]:
        """`make` for many images, in order; several at a time where the generator allows it.

        Args:
            one_by_one: an image is begun when the one before it is done, in any case.

        Yields:
            An image, and what returns its key, or raises what `make` does.
        """
        at_once = 1 if one_by_one else getattr(self._generator, "images_at_once", 1)
        if at_once < 2:
            for info, annotations in images:
                yield info, partial(self.make, info, annotations)
            return
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="proposals")
        begun: deque[tuple[ImageInfo, Callable[[], str]]] = deque()
        try:
            for info, annotations in images:
                begun.append((info, pool.submit(self.make, info, annotations).result))
                if len(begun) == at_once:
                    yield begun.popleft()
            yield from begun
        finally:
            pool.shutdown(cancel_futures=True)

    def export(self, keys: Iterable[str], path: Path) -> None:
        """Write stored bags as a file that `merge` reads.

        Args:
            keys: of `make`.

        Raises:
            ProposalsLost: some are not in the store any more.
        """
        try:
            self._store.export(filter(None, keys), path)
        except KeyError:
            raise ProposalsLost(_LOST) from None

    def merge(self, path: Path) -> None:
        """Take bags into the store that another process has made."""
        self._store.merge(path)

    def read(self, key: str, annotations: Sequence[PointAnnotation]) -> list[Bag]:
        """The stored bags of the annotations of an image, in their order.

        Args:
            key: of `make`.

        Raises:
            ProposalsLost: they are not in the store any more.
        """
        confirmed = {a.id: _confirmed_bag(a.id, a.mask) for a in annotations if a.mask is not None}
        if not key:
            return list(confirmed.values())
        bags = self._store.get(key)
        if bags is None:
            raise ProposalsLost(_LOST)
        return [confirmed.get(bag.annotation_id, bag) for bag in bags]


class StoredBags(Mapping[int, list[Bag]]):
    """The bags of a run's images by image id, read from the store each time they are asked for.

    Only their keys are held: bags are 4 to 14 KB an annotation.
    """

    def __init__(self, cache: CachedProposals, points: PointSet, keys: Mapping[int, str]) -> None:
        """keys: of `CachedProposals.make`, by image id."""
        self._cache, self._points, self._keys = cache, points, keys
        self._sizes: dict[int, tuple[int, ...]] = {}

    def __getitem__(self, image_id: int) -> list[Bag]:
        bags = self._cache.read(self._keys[image_id], self._points.annotations_of[image_id])
        self._sizes[image_id] = tuple(len(bag) for bag in bags)
        return bags

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def sizes(self, image_id: int) -> tuple[int, ...]:
        """The number of masks in each bag of an image; read once."""
        if image_id not in self._sizes:
            _ = self[image_id]
        return self._sizes[image_id]

    def by_annotation(self) -> "BagsByAnnotation":
        """The same bags by annotation id."""
        image_of = {a.id: a.image_id for a in self._points.annotations if a.image_id in self._keys}
        return BagsByAnnotation(self, image_of)


class BagsByAnnotation(Mapping[int, Bag]):
    """Bags by annotation id, in the order of the images; those of the last image are kept."""

    def __init__(self, bags: Mapping[int, list[Bag]], image_of: Mapping[int, int]) -> None:
        """image_of: annotation id -> image id."""
        self._bags, self._image_of = bags, image_of
        self._last: tuple[int | None, dict[int, Bag]] = (None, {})

    def __getitem__(self, annotation_id: int) -> Bag:
        return self._of_image(self._image_of[annotation_id])[annotation_id]

    def __iter__(self) -> Iterator[int]:
        for image_id in self._bags:
            yield from self._of_image(image_id)

    def __len__(self) -> int:
        return len(self._image_of)

    def _of_image(self, image_id: int) -> dict[int, Bag]:
        if self._last[0] != image_id:
            self._last = image_id, {bag.annotation_id: bag for bag in self._bags[image_id]}
        return self._last[1]


def _confirmed_bag(annotation_id: int, mask: Rle) -> Bag:
    return bag_of(annotation_id, [mask], np.ones(1, np.float32), [CONFIRMED])


def masks_digest(points: PointSet) -> str | None:
    """Digest of the confirmed masks, 16 hex digits; None where there are none."""
    confirmed = [(a.id, a.mask) for a in points.annotations if a.mask is not None]
    return hashlib.sha256(json.dumps(confirmed).encode()).hexdigest()[:16] if confirmed else None


def boxes_digest(points: PointSet) -> str | None:
    """Digest of the boxes, 16 hex digits; None where there are none."""
    boxes = [(a.id, a.box, a.pointed) for a in points.annotations if a.box is not None]
    return hashlib.sha256(json.dumps(boxes).encode()).hexdigest()[:16] if boxes else None


@contextmanager
def naming(info: ImageInfo) -> Iterator[None]:
    """Name the image in an ImageProblem of its file."""
    try:
        yield
    except ImageProblem as error:
        raise ImageProblem(f"image {info.id} ({info.file_name}): {error}") from error
