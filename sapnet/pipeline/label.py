"""Pseudo-masks and detections of one training image by the trained model."""

from dataclasses import dataclass
from typing import Any

import torch

from sapnet.data.batch import make_batch
from sapnet.data.samples import ImageRecord, load_sample
from sapnet.segmenters.base import as_results
from sapnet.training.model import JointModel
from sapnet.types import PseudoMask


@dataclass(frozen=True)
class ImageResult:
    """The results of one image.

    Attributes:
        pseudo_masks: one an annotation, without their quality.
        detections: the segmenter's own, as COCO results without category ids ("label" instead).
    """

    pseudo_masks: list[PseudoMask]
    detections: list[dict[str, Any]]


@torch.no_grad()
def label_image(model: JointModel, record: ImageRecord, detect_too: bool = True) -> ImageResult:
    """Label one image: its pseudo-masks, and where wanted the segmenter's own detections."""
    sample = load_sample(record, model.config.data)
    batch = make_batch([sample], model.device)
    result = model(batch)
    objects = model.segmenter.object_masks(result.output, result.labels)
    masks = model.labeler.deliver(batch, result.features, result.labels, objects)
    detections: list[dict[str, Any]] = []
    if detect_too:
        sizes = [sample.size], [record.info.size]
        (instances,) = model.segmenter.decode(result.output, *sizes)
        detections = as_results(instances)
    return ImageResult(masks, detections)
