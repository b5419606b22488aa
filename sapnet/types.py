"""The shared vocabulary, and the one legend of shapes. Imports no torch.

Legend
    B    images in a batch                 N    annotated points (of one image, or of a batch)
    M    proposals of one point, padded    K    classes, background not counted
    L    FPN levels                        H W  height and width in pixels
    Boxes are xyxy, absolute float pixels. Points are xy with pixel centres at .5. Sizes are (h, w).
    Masks travel as compressed COCO RLE. `mask_logits` are before the sigmoid, `mask_probs` after.
"""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.float32]
    ByteArray = npt.NDArray[np.uint8]
else:  # names of classes and subsets are wanted where no array is: the API loads no numpy
    BoolArray = FloatArray = ByteArray = Any

Box = tuple[float, float, float, float]
"""xyxy, pixels of the image."""

CONFIRMED = "confirmed"
"""The source of a mask that its owner has given, in bags and in results."""

Precision = Literal["auto", "float32", "bfloat16"]
Subset = Literal["train", "val", "test"]
"""The part of a dataset that its owner has put an image into."""
Method = Literal["sam-top1", "consensus", "box-rule", "mil", "sapnet", "sapnet++", "p2seg", "sim"]


class Rle(TypedDict):
    """A mask as compressed COCO RLE: `size` is [h, w], `counts` an ASCII string."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True)
class Category:
    """A class of objects; the id is the user's own."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image of a dataset; width and height in pixels.

    Attributes:
        subset: where its owner has split the dataset.
        group: images of one group are held out of training together.
    """

    id: int
    file_name: str
    width: int
    height: int
    subset: Subset | None = field(default=None, repr=False)  # the repr names runs
    group: str | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class PointAnnotation:
    """One object: its point (pixels, xy) and its class. All ids are the user's own.

    Attributes:
        mask: what its owner says that it is, at image size, not empty; None where it is not known.
        box: the object's box, within its image; None where none was drawn.
        pointed: whether there is a point; where not, x and y are the middle of the box.
    """

    id: int
    image_id: int
    category_id: int
    x: float
    y: float
    mask: Rle | None = field(default=None, repr=False, hash=False)
    box: Box | None = field(default=None, repr=False)
    pointed: bool = field(default=True, repr=False)

    @property
    def guide(self) -> Box | None:
        """The box where it is the most that is known: a mask tells more."""
        return self.box if self.mask is None else None


@dataclass(frozen=True)
class PointSet:
    """The annotations of a dataset that training uses. `iscrowd` is already left out."""

    images: tuple[ImageInfo, ...]
    annotations: tuple[PointAnnotation, ...]
    categories: tuple[Category, ...]

    @cached_property
    def label_of(self) -> dict[int, int]:
        """category_id -> label 0..K-1, by ascending id (ids may start anywhere and have gaps)."""
        return {c: label for label, c in enumerate(sorted(c.id for c in self.categories))}

    @cached_property
    def annotations_of(self) -> dict[int, tuple[PointAnnotation, ...]]:
        """image_id -> its annotations, in the file's order; every image has an entry."""
        grouped: dict[int, list[PointAnnotation]] = {image.id: [] for image in self.images}
        for annotation in self.annotations:
            grouped[annotation.image_id].append(annotation)
        return {image_id: tuple(group) for image_id, group in grouped.items()}

    def only(self, image_ids: Collection[int]) -> "PointSet":
        """The images of these ids, with their annotations; the categories stay."""
        return PointSet(
            images=tuple(image for image in self.images if image.id in image_ids),
            annotations=tuple(a for a in self.annotations if a.image_id in image_ids),
            categories=self.categories,
        )

    def without(self, image_ids: Collection[int]) -> "PointSet":
        """All images but those of these ids."""
        return self.only({image.id for image in self.images}.difference(image_ids))

    def __iter__(self) -> Iterator[tuple[ImageInfo, tuple[PointAnnotation, ...]]]:
        for image in self.images:
            yield image, self.annotations_of[image.id]


@dataclass(frozen=True, slots=True)
class ProposalScores:
    """The teacher's scores of one annotation's bag (`sapnet.labelers.sapnet.teacher`).

    Attributes:
        contrast: (M,) float32 <= 0, mean log-likelihood that the mask's inside is object and that
            the ring around it is not.
        overlap: (M,) float32 in [0, 1], soft IoU with the mask that the teacher would draw.
    """

    contrast: FloatArray
    overlap: FloatArray


@dataclass(frozen=True, slots=True)
class RawProposals:
    """The output of a generator for one point, before the bag rules.

    Attributes:
        masks: (M, H, W) bool at image size, or M RLEs of that size.
        confidence: (M,) float32 in [0, 1].
        sources: M tags.
    """

    masks: BoolArray | tuple[Rle, ...]
    confidence: FloatArray
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bag:
    """The proposals of one point after the bag rules, by falling confidence. Never empty.

    Attributes:
        boxes: (M, 4) float32, tight xyxy of the masks, pixels of the image.
        masks: M RLEs at image size.
        confidence: (M,) float32 in [0, 1].
        sources: M tags.
        overlaps: (M, M) float32, mask IoU.
    """

    annotation_id: int
    boxes: FloatArray
    masks: tuple[Rle, ...]
    confidence: FloatArray
    sources: tuple[str, ...]
    overlaps: FloatArray

    def __len__(self) -> int:
        return len(self.masks)


class Alternative(msgspec.Struct, frozen=True):
    """Another mask of a bag, that might be the object.

    Attributes:
        index: its place in the list, from 0.
        segmentation: at image size.
        probability: in [0, 1], after all masks of the bag.
    """

    index: int
    segmentation: Rle
    probability: float


class PseudoMask(msgspec.Struct, frozen=True):
    """The delivered mask of one annotation: a line of `pseudo_masks.ndjson`.

    Attributes:
        id: the annotation's, as image_id and category_id are the user's own.
        segmentation: the delivered mask, at image size; bbox (xywh) and area are its own, in
            pixels.
        source: "selected", "refined" or "confirmed", of the delivered mask.
        selected: the proposal that was selected, M_srm. refined: its refinement, where there is
            one.
        mask_features: what speaks for and against the mask, see `sapnet.labelers.quality`; in JSON
            `doubts`. None of a confirmed mask.
        proposal_source: the tag of the selected proposal.
        alternatives: in JSON `candidates`.
        quality: probability that the mask is the object, in [0, 1]; NaN until it is assigned.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Rle
    bbox: list[float]
    area: int
    source: str
    selected: Rle
    refined: Rle | None = None
    mask_features: dict[str, float | None] = msgspec.field(name="doubts", default_factory=dict)
    proposal_source: str = ""
    alternatives: list[Alternative] = msgspec.field(name="candidates", default_factory=list)
    quality: float = math.nan

    def to_json(self) -> bytes:
        """The mask's line of JSON, with the line's end."""
        return f"{json.dumps(msgspec.to_builtins(self))}\n".encode()
