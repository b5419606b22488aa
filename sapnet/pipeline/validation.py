"""The validation of a run: which images are held out, and what the model's figures are on them.

They are measured against the ground truth where there is one, else against confirmed masks, else
against the masks that the run itself delivers for them: agreement, not accuracy.
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch

from sapnet.data.batch import make_batch
from sapnet.data.masks import area, tight_box
from sapnet.data.samples import ImageRecord, load_sample
from sapnet.data.split import hold_out, split_given
from sapnet.evaluation import average_precision
from sapnet.evaluation.curves import as_metrics, precision_recall
from sapnet.evaluation.operating_point import best_operating_point
from sapnet.pipeline.context import RunContext
from sapnet.pipeline.contract import Stage
from sapnet.pipeline.events import Validated
from sapnet.pipeline.label import label_image
from sapnet.segmenters.base import as_results
from sapnet.training.dataset import TrainingSet
from sapnet.training.model import JointModel
from sapnet.types import PointAnnotation, PointSet, PseudoMask, Rle
from sapnet.utils.files import write_text
from sapnet.utils.precision import mixed

Truth = dict[str, Any]


class Reference(StrEnum):
    """What a model is measured against, the best that there is."""

    GROUND_TRUTH = "ground truth"
    CONFIRMED = "confirmed masks"
    DELIVERED = "delivered masks"


def held_out_images(ctx: RunContext, points: PointSet) -> tuple[frozenset[int], frozenset[int]]:
    """Choose the images that the segmenter is not trained on.

    Returns:
        Ids of those to validate on, and of all that are not trained on: the user's own subsets
        where the run has them, else a share by content.
    """
    ids = {image.id for image in points.images}
    if ctx.spec.subsets:
        given = {id_: subset for id_, subset in ctx.spec.subsets.items() if id_ in ids}
        validated, untrained = split_given(given)
        if len(untrained) < len(ids):
            return frozenset(validated), frozenset(untrained)
        ctx.warn("all images are of the subsets val and test: the training takes them all")
        return frozenset(), frozenset()
    config = ctx.config.train
    if len(ids) < max(config.hold_out_from, config.hold_out_least + 1):
        return frozenset(), frozenset()
    files = {id_: path for id_, path in ctx.spec.image_paths.items() if id_ in ids}
    images = hold_out(
        files, share=config.hold_out, at_least=config.hold_out_least, seed=ctx.spec.seed
    )
    return images, images


class Validator:
    """Measures a model on the images held out, during the training and at its end."""

    def __init__(self, ctx: RunContext, dataset: TrainingSet, truth: Truth | None) -> None:
        """Choose what the model is measured against.

        Args:
            ctx: of the run; an event is sent for every validation.
            dataset: the images held out, at least one.
            truth: of the run, where it was given.
        """
        self._ctx, self._dataset = ctx, dataset
        self._path = ctx.folder / "validations.json"
        kept = json.loads(self._path.read_text()) if self._path.exists() else []
        self.history: list[dict[str, Any]] = kept
        self._truth: Truth | None = None
        points = dataset.points
        confirmed = fully_confirmed(points)
        listed = {image["id"] for image in truth["images"]} if truth else set()
        measurable = _ids(points) & listed.difference(truth["incomplete"] if truth else ())
        if measurable:
            self.reference, self.images, self._truth = Reference.GROUND_TRUTH, measurable, truth
        elif confirmed.annotations:
            self.reference, self.images = Reference.CONFIRMED, _ids(confirmed)
            masks = {a.id: a.mask for a in confirmed.annotations}
            self._truth = as_truth(points, confirmed.annotations, masks)
        else:
            self.reference, self.images = Reference.DELIVERED, _ids(points)

    def __call__(self, model: JointModel, step: int, of: int) -> float:
        """Validate between two steps. AP is the figure by which weights are chosen."""
        category = {label: id_ for id_, label in self._dataset.points.label_of.items()}
        detections: list[dict[str, Any]] = []
        masks: list[PseudoMask] = []
        for record in self._dataset:
            if record.info.id not in self.images:
                continue
            with self._ctx.failed.catch(record.info, Stage.TRAIN):
                if self._truth is None:
                    labeled = label_image(model, record)
                    masks += labeled.pseudo_masks
                    results = labeled.detections
                else:
                    results = detect(model, record)
                detections += [
                    {"image_id": record.info.id, "category_id": category[d["label"]], **d}
                    for d in results
                ]
        scores = average_precision(
            detections,
            self._truth or self._delivered(masks),
            image_ids=self.images,
            category_ids=set(category.values()),
        )
        figures = {name: round(scores[name] or 0.0, 5) for name in ("AP", "AP50", "AP75")}
        # a resumed run begins before the last validation
        before = [kept for kept in self.history if kept["step"] * of < step * kept["of"]]
        self.history = [*before, {"step": step, "of": of, **figures}]
        write_text(self._path, json.dumps(self.history))
        self._ctx.emit_event(Validated(step, of, str(self.reference), figures))
        return scores["AP"] or 0.0

    def metrics(
        self, detections: Sequence[Mapping[str, Any]], masks: Sequence[PseudoMask]
    ) -> dict[str, Any]:
        """The part of `metrics.json` about the images held out.

        Args:
            detections: COCO results of the model that is delivered, of all images.
            masks: the delivered ones, of all images.
        """
        points = self._dataset.points
        classes = {category.id for category in points.categories}
        images = {id_ for id_ in self.images if id_ not in self._ctx.failed}
        own = [dict(d) for d in detections if d["image_id"] in images]
        truth = self._truth or self._delivered([m for m in masks if m.image_id in images])
        scores = average_precision(own, truth, image_ids=images, category_ids=classes)
        curves = precision_recall(own, truth, image_ids=images)
        point = best_operating_point(own, truth, images, classes)
        return {
            "on": f"{len(images)} images held out",
            "against": str(self.reference),
            "images": sorted(images),
            **scores,
            "classes": as_metrics(curves)["classes"] if curves else [],
            "at_best_f1": point.to_dict() if point else None,
            "history": self.history,
        }

    def _delivered(self, masks: Sequence[PseudoMask]) -> Truth:
        points = self._dataset.points
        by_id = {mask.id: mask.segmentation for mask in masks}
        labeled = [a for a in points.annotations if a.id in by_id]
        return as_truth(points, labeled, by_id)


def _ids(points: PointSet) -> set[int]:
    return {image.id for image in points.images}


def fully_confirmed(points: PointSet) -> PointSet:
    """The images of whose objects every one has a confirmed mask; at least one object each."""
    kept = {info.id for info, group in points if group and all(a.mask is not None for a in group)}
    return points.only(kept)


def as_truth(
    points: PointSet, annotations: Sequence[PointAnnotation], masks: Mapping[int, Rle | None]
) -> Truth:
    """Masks by annotation id in the form of a ground truth (`read_truth`)."""
    objects = [
        {
            "id": a.id,
            "image_id": a.image_id,
            "category_id": a.category_id,
            "segmentation": mask,
            "bbox": tight_box(mask),
            "area": area(mask),
            "iscrowd": 0,
        }
        for a in annotations
        if (mask := masks[a.id]) is not None
    ]
    images = [{"id": i.id, "height": i.height, "width": i.width} for i in points.images]
    categories = [{"id": c.id, "name": c.name} for c in points.categories]
    return {"images": images, "annotations": objects, "categories": categories, "incomplete": []}


@torch.no_grad()
def detect(model: JointModel, record: ImageRecord) -> list[dict[str, Any]]:
    """What the segmenter finds in one image: COCO results with "label" for the class."""
    sample = load_sample(record, model.config.data)
    batch = make_batch([sample], model.device)
    with mixed(model.device, model.config.train.precision):
        _, output = model.segmenter(batch.images)
    (instances,) = model.segmenter.decode(output, [sample.size], [record.info.size])
    return as_results(instances)
