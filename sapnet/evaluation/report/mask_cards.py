"""The masks that the report shows: whole images, the best, the worst, the least certain."""

from collections.abc import Sequence
from dataclasses import dataclass

from sapnet.evaluation.calibration import RIGHT
from sapnet.evaluation.report.inputs import ReportInputs
from sapnet.evaluation.report.thumbnails import Thumbnails
from sapnet.labelers.quality import explain_low_quality
from sapnet.types import PseudoMask

IMAGES, SHOWN, UNCERTAIN = 4, 6, 12
"""Whole images; best and worst masks; those of the lowest quality."""
SURE = 0.8
"""From this quality on no reasons against a mask are listed."""


@dataclass(frozen=True)
class ImageCard:
    """An image with its masks: a data URI, and what it shows in words."""

    uri: str
    text: str


@dataclass(frozen=True)
class MaskCard:
    """One delivered mask; iou is None without ground truth."""

    uri: str
    mask: PseudoMask
    category: str
    file_name: str
    iou: float | None
    reasons: Sequence[str]

    @property
    def right(self) -> bool:
        """Whether the IoU with the ground truth is at least 0.5."""
        return self.iou is not None and self.iou >= RIGHT


@dataclass(frozen=True)
class Strip:
    """Masks side by side under one title."""

    title: str
    note: str
    cards: Sequence[MaskCard]


def whole_images(inputs: ReportInputs, thumbnails: Thumbnails) -> list[ImageCard]:
    """The first images that have masks."""
    cards: list[ImageCard] = []
    for info, annotations in inputs.points:
        if len(cards) == IMAGES:
            break
        masks = [mask for mask in inputs.masks if mask.image_id == info.id]
        uri = thumbnails.of_image(info, masks, annotations) if masks else None
        if uri:
            cards.append(ImageCard(uri, f"{info.file_name} with {len(masks)} masks"))
    return cards


def example_strips(inputs: ReportInputs, thumbnails: Thumbnails) -> list[Strip]:
    """Best and worst masks, by quality where there is no ground truth, and the least certain."""
    by_quality = sorted(inputs.masks, key=lambda mask: mask.quality)
    if inputs.ious:
        with_truth = [mask for mask in inputs.masks if mask.id in inputs.ious]
        with_truth.sort(key=lambda mask: -inputs.ious[mask.id])
        chosen = [
            ("Best", "highest IoU with the ground truth", with_truth[:SHOWN]),
            ("Worst", "lowest IoU with the ground truth", with_truth[: -SHOWN - 1 : -1]),
        ]
    else:
        chosen = [("Best", "highest quality", by_quality[: -SHOWN - 1 : -1])]
    chosen.append(("Least certain", "lowest quality: review these first", by_quality[:UNCERTAIN]))
    strips = []
    for title, note, masks in chosen:
        cards = [card for mask in masks if (card := _card(inputs, thumbnails, mask))]
        if cards:
            strips.append(Strip(title, note, cards))
    return strips


def _card(inputs: ReportInputs, thumbnails: Thumbnails, mask: PseudoMask) -> MaskCard | None:
    uri = thumbnails.of_mask(mask, inputs.annotation_of(mask), inputs.true.get(mask.id))
    if uri is None:
        return None
    explained = mask.mask_features and mask.quality < SURE
    return MaskCard(
        uri=uri,
        mask=mask,
        category=next(c.name for c in inputs.points.categories if c.id == mask.category_id),
        file_name=next(i.file_name for i in inputs.points.images if i.id == mask.image_id),
        iou=inputs.ious.get(mask.id),
        reasons=explain_low_quality(mask.mask_features, inputs.usual) if explained else (),
    )
