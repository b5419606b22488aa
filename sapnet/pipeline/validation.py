"""The validation of a run: which images are held out, and what the model's figures are on them.

They are measured against the ground truth where there is one, else against confirmed masks, else
against the masks that the run itself delivers for them: agreement, not accuracy.
"""

import json
from collections.abc import Collection, Mapping, Sequence
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
from sapnet.pipeline.spec import RunSpec
from sapnet.segmenters.base import as_results
from sapnet.training.dataset import TrainingSet
from sapnet.training.model import JointModel
from sapnet.types import PointAnnotation, PointSet, PseudoMask, Rle, Subset
from sapnet.utils.files import write_text
from sapnet.utils.precision import mixed

Truth = dict[str, Any]


class Reference(StrEnum):
    """What a model is measured against, the best that there is."""

    GROUND_TRUTH = "ground truth"
    CONFIRMED = "confirmed masks"
    DELIVERED = "delivered masks"


def given_subsets(spec: RunSpec, points: PointSet) -> dict[int, Subset]:
    """The user's own split, by image id: the job's, else that of the points."""
    if spec.subsets:
        ids = {image.id for image in points.images}
        return {id_: subset for id_, subset in spec.subsets.items() if id_ in ids}
    return {image.id: image.subset for image in points.images if image.subset}


def held_out_images(ctx: RunContext, points: PointSet) -> tuple[frozenset[int], frozenset[int]]:
    """Choose the images that the segmenter is not trained on.

    Returns:
        Ids of those to validate on, and of all that are not trained on: by the user's own subsets,
        and where none is for validation, by a share of the annotated images that have no subset.
    """
    given = given_subsets(ctx.spec, points)
    validated, untrained = map(frozenset, split_given(given))
    empty = not_annotated(ctx, points)
    if len(untrained | empty) == len(points.images):
        ctx.warn("all images are of the subsets val and test: the training takes them all")
        return frozenset(), frozenset()
    if not validated:
        config = ctx.config.train
        # a group with an image that has a subset stays with it
        fixed = {image.group for image in points.images if image.id in given} - {None}
        free = {
            image.id: image.group
            for image in points.images
            if image.id not in given and image.id not in empty and image.group not in fixed
        }
        if len(free) < max(config.hold_out_from, config.hold_out_least + 1):
            return validated, untrained
        validated = hold_out(
            {id_: path for id_, path in ctx.spec.image_paths.items() if id_ in free},
            share=config.hold_out,
            at_least=config.hold_out_least,
            seed=ctx.spec.seed,
            groups={id_: group for id_, group in free.items() if group is not None},
        )
    return validated, untrained | validated


def not_annotated(ctx: RunContext, points: PointSet) -> frozenset[int]:
    """Ids of the images without annotations, unless these are to be learned as background."""
    if ctx.config.train.empty_images or not points.annotations:
        return frozenset()
    return frozenset(_ids(points).difference(a.image_id for a in points.annotations))


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
        empty = not_annotated(ctx, dataset.points)
        self.reference, self.images = Reference.DELIVERED, _ids(dataset.points) - empty
        self._truth: Truth | None = None
        if usable := known_truth(dataset.points, truth):
            self.reference, self.images, self._truth = usable

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
        images, truth = self.reference_masks(masks)
        figures = _final_figures(detections, truth, images, self._dataset.points)
        on = {"on": f"{len(images)} images held out", "against": str(self.reference)}
        return {**on, **figures, "history": self.history}

    @property
    def is_agreement(self) -> bool:
        """Whether it measures against masks that the run itself has delivered."""
        return self._truth is None

    def reference_masks(self, masks: Sequence[PseudoMask]) -> tuple[set[int], Truth]:
        """Ids of the images that could be read, and what the model is measured against there.

        Args:
            masks: the delivered ones, of all images.
        """
        images = {id_ for id_ in self.images if id_ not in self._ctx.failed}
        return images, self._truth or self._delivered([m for m in masks if m.image_id in images])

    def _delivered(self, masks: Sequence[PseudoMask]) -> Truth:
        points = self._dataset.points
        by_id = {mask.id: mask.segmentation for mask in masks}
        labeled = [a for a in points.annotations if a.id in by_id]
        return as_truth(points, labeled, by_id)


def subset_metrics(
    ctx: RunContext,
    points: PointSet,
    tested: Collection[int],
    detections: Sequence[Mapping[str, Any]],
    truth: Truth | None,
) -> dict[str, Any] | None:
    """The part of `metrics.json` about the images of the subset test.

    Args:
        points: of the run.
        tested: their ids.
        detections, truth: see `Validator`.

    Returns:
        None where neither ground truth nor confirmed masks of them are known.
    """
    usable = known_truth(points.only(frozenset(tested)), truth)
    if usable is None:
        return None
    reference, measurable, against = usable
    images = {id_ for id_ in measurable if id_ not in ctx.failed}
    on = {"on": f"{len(images)} images of the subset test", "against": str(reference)}
    return {**on, **_final_figures(detections, against, images, points)}


def known_truth(points: PointSet, truth: Truth | None) -> tuple[Reference, set[int], Truth] | None:
    """What is known of images: ground truth, else the masks of those that are confirmed whole.

    Returns:
        It, the ids of the images that it is of, and in which form; None where nothing is known.
    """
    listed = {image["id"] for image in truth["images"]} if truth else set()
    if truth and (images := _ids(points) & listed.difference(truth["incomplete"])):
        return Reference.GROUND_TRUTH, images, truth
    confirmed = fully_confirmed(points)
    if not confirmed.annotations:
        return None
    masks = {a.id: a.mask for a in confirmed.annotations}
    return Reference.CONFIRMED, _ids(confirmed), as_truth(points, confirmed.annotations, masks)


def _final_figures(
    detections: Sequence[Mapping[str, Any]], truth: Truth, images: set[int], points: PointSet
) -> dict[str, Any]:
    classes = {category.id for category in points.categories}
    own = [dict(d) for d in detections if d["image_id"] in images]
    curves = precision_recall(own, truth, image_ids=images)
    best = best_operating_point(own, truth, images, classes)
    return {
        "images": sorted(images),
        **average_precision(own, truth, image_ids=images, category_ids=classes),
        "classes": as_metrics(curves)["classes"] if curves else [],
        "at_best_f1": best.to_dict() if best else None,
    }


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
