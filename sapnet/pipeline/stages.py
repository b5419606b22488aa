"""The stages of a run. Each leaves its result whole or not at all, and is resumable."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sapnet.config.published import missing_segmenter
from sapnet.data.images import ImageProblem
from sapnet.data.pixels import Ranges
from sapnet.data.value_ranges import dataset_ranges
from sapnet.evaluation import average_precision, pseudo_mask_metrics
from sapnet.evaluation.calibration import reliability
from sapnet.evaluation.curves import as_metrics, draw_curves, precision_recall
from sapnet.evaluation.pseudo_masks import as_selected, ious_with, true_masks
from sapnet.evaluation.report.gallery import ROWS
from sapnet.labelers.base import Preparation
from sapnet.labelers.quality import assign_quality
from sapnet.pipeline.context import RunContext
from sapnet.pipeline.contract import Stage
from sapnet.pipeline.label import label_image
from sapnet.pipeline.validation import Validator, subset_metrics
from sapnet.proposals.base import ProposalGenerator
from sapnet.proposals.cached import CachedProposals, StoredBags
from sapnet.segmenters.backbones import WeightsOrigin
from sapnet.training.dataset import TrainingSet
from sapnet.training.loop import train
from sapnet.training.model import Builders, JointModel, build_model
from sapnet.training.validation import Validate
from sapnet.training.warm_start import go_on_from
from sapnet.types import Category, PointSet, PseudoMask
from sapnet.utils import distributed
from sapnet.utils.files import atomic_write, write_text
from sapnet.utils.resources import ProgressTimer

CALIBRATED = 16
"""Images with annotations, the first ones, whose detections calibrate scores where none are held
out."""


def make_model(
    ctx: RunContext, categories: Sequence[Category], builders: Builders
) -> tuple[JointModel, WeightsOrigin]:
    """The model before its first step, on the device: new, or going on from another."""
    spec = ctx.spec
    if spec.initial_model is not None:
        model, origin = go_on_from(
            spec.initial_model, ctx.config, categories, spec.seed, builders, ctx.warn
        )
    else:
        if lacking := missing_segmenter(ctx.config.preset):
            ctx.warn(lacking)
        model, origin = build_model(
            ctx.config, len(categories), spec.backbone_weights, spec.seed, builders=builders
        )
    return model.to(distributed.device()), origin


def find_pixel_ranges(ctx: RunContext, points: PointSet) -> Ranges:
    """The dataset's ranges of pixel values; those of an earlier attempt, where there was one."""
    path = ctx.spec.workdir / "pixel_ranges.json"
    if not path.exists():
        files = [ctx.spec.image_paths.get(image.id) for image in points.images]
        ranges = dataset_ranges([file for file in files if file is not None])
        if distributed.is_main():
            write_text(path, json.dumps(ranges) + "\n")
    stored: Ranges = json.loads(path.read_text())
    return stored


def make_proposals(ctx: RunContext, generator: ProposalGenerator, points: PointSet) -> StoredBags:
    """The bags of every image, by image id. Images that fail are recorded and left out.

    The main process makes them; the others, to be called after it, take its word.
    """
    ctx.failed.read()
    path = ctx.spec.workdir / "proposals.json"
    limit = ctx.config.data.max_proposals
    maker = CachedProposals(
        ctx.spec.proposal_store, generator, ctx.spec.image_paths, limit, ctx.pixel_ranges
    )
    if not distributed.is_main():
        stored: dict[str, str] = json.loads(path.read_bytes())
        return StoredBags(maker, points, {int(id_): key for id_, key in stored.items()})
    for file in ctx.spec.proposal_files:
        maker.merge(file)
    keys: dict[int, str] = {}
    eta = ProgressTimer()
    wanted = [image for image in points if image[0].id not in ctx.failed]
    count = len(points.images)
    for step, (info, make) in enumerate(maker.make_all(wanted), start=count - len(wanted) + 1):
        with ctx.failed.catch(info, Stage.PROPOSALS):
            keys[info.id] = make()
        ctx.progress(Stage.PROPOSALS, step, count, eta)
    write_text(path, json.dumps(keys))
    return StoredBags(maker, points, keys)


def prepare_labeler(
    ctx: RunContext, model: JointModel, dataset: TrainingSet, tested: frozenset[int]
) -> TrainingSet:
    """Do what the labeler does once before training.

    Args:
        tested: ids of the images that nothing is learnt from.

    Returns:
        The dataset without the images that could not be read.
    """
    labeler, stage = model.labeler, model.labeler.preparation
    if stage is None:
        return dataset
    timer = ProgressTimer()

    def report(step: int, of: int, losses: dict[str, float]) -> None:
        ctx.progress(stage, step, of, timer, losses=losses)

    while True:
        ctx.failed.read()
        dataset = dataset.without(ctx.failed.without(dataset.points, early=True))
        preparation = Preparation(
            folder=ctx.folder,
            seed=ctx.spec.seed,
            report=report,
            should_stop=ctx.should_stop,
            tested=tested,
        )
        try:
            labeler.prepare(dataset, model.segmenter.body, preparation)
            return dataset
        except ImageProblem:
            unreadable = list(dataset.unreadable())
            if not unreadable:
                raise
            for info, error in unreadable:
                ctx.failed.add(info, stage, error)


def train_model(
    ctx: RunContext, model: JointModel, dataset: TrainingSet, validate: Validate | None = None
) -> int:
    """Train to the end, from the last checkpoint where there is one.

    Args:
        dataset: the images to train on.
        validate: measures the model on others.

    Returns:
        How many objects were undecided.
    """
    timer = ProgressTimer()

    def report(step: int, of: int, losses: dict[str, float]) -> None:
        rounded = {name: round(value, 5) for name, value in losses.items()}
        if distributed.is_main():
            ctx.losses.add(step, of, losses)
        ctx.progress(Stage.TRAIN, step, of, timer, losses=rounded, stoppable=False)

    objects = [0] * len(dataset.points.label_of)
    for annotation in dataset.points.annotations:
        objects[dataset.points.label_of[annotation.category_id]] += 1
    model.labeler.expect(objects)
    undecided = train(
        model,
        dataset,
        seed=ctx.spec.seed,
        checkpoint=ctx.folder / "checkpoint.pt",
        report=report,
        should_stop=ctx.should_stop,
        warn=ctx.warn,
        on_failed_image=lambda info, error: ctx.failed.add(info, Stage.TRAIN, error),
        validate=validate,
    )
    if undecided:
        ctx.warn(f"{undecided} bags had no best proposal")
    return undecided


def label_images(
    ctx: RunContext, model: JointModel, dataset: TrainingSet, measured: Collection[int] = ()
) -> tuple[list[PseudoMask], list[dict[str, Any]]]:
    """Pseudo-masks of all images, and the segmenter's own detections on those of interest.

    Args:
        measured: ids of the images whose detections are wanted in any case; those of others are
            where there is ground truth, and of the first ones: for the gallery, and where nothing
            is measured for the calibration of scores.
    """
    category = {label: c for c, label in dataset.points.label_of.items()}
    masks: list[PseudoMask] = []
    detections: list[dict[str, Any]] = []
    timer = ProgressTimer()
    shown = 0  # in the gallery
    for index, info in enumerate(dataset.points.images):
        if info.id not in ctx.failed:
            with ctx.failed.catch(info, Stage.PSEUDO_MASKS):
                record = dataset[index]
                shown += bool(record.annotations)
                first = shown <= (ROWS if measured else CALIBRATED)
                wanted = ctx.spec.truth is not None or first or info.id in measured
                labeled = label_image(model, record, wanted)
                masks += labeled.pseudo_masks
                for detection in labeled.detections:
                    label = detection.pop("label")
                    detections.append(
                        {"image_id": info.id, "category_id": category[label], **detection}
                    )
        ctx.progress(Stage.PSEUDO_MASKS, index + 1, len(dataset), timer)
    masks = assign_quality(masks)
    with atomic_write(ctx.result / "pseudo_masks.ndjson") as file:
        file.writelines(mask.to_json() for mask in masks)
    return masks, detections


def evaluate(
    ctx: RunContext,
    points: PointSet,
    bags: StoredBags,
    masks: list[PseudoMask],
    detections: list[dict[str, Any]],
    truth: dict[str, Any] | None,
    validator: Validator | None = None,
    tested: Collection[int] = (),
) -> dict[str, Any]:
    """`metrics.json`: figures where truth was given, counts in any case.

    Args:
        tested: ids of the images of the subset test.
    """
    counts = [size for image_id in bags for size in bags.sizes(image_id)]
    metrics: dict[str, Any] = {
        "pseudo_masks": None,
        "model": None,
        "proposals": {"mean_bag_size": round(sum(counts) / max(len(counts), 1), 3)},
        "validation": validator.metrics(detections, masks) if validator else None,
        "test": subset_metrics(ctx, points, tested, detections, truth) if tested else None,
    }
    if truth is not None:
        # Where the truth lacks an object, whoever finds it would be called wrong.
        images = {image.id for image in points.images} & {image["id"] for image in truth["images"]}
        images.difference_update(truth["incomplete"])
        images -= (validator.images if validator else set()) | set(tested)
        curves = precision_recall(detections, truth, image_ids=images)
        figures = pseudo_mask_metrics(masks, bags.by_annotation(), points, truth)
        before = [as_selected(mask) for mask in masks]
        picked = pseudo_mask_metrics(before, bags.by_annotation(), points, truth)
        figures["selected_miou_mask"] = picked["miou_mask"]
        figures["quality"] = reliability(masks, ious_with(masks, true_masks(points, truth)))
        metrics["proposals"] |= figures.pop("proposals")
        metrics["pseudo_masks"] = figures
        metrics["model"] = {
            "on": "training images",
            **{
                kind: average_precision(detections, truth, kind=kind, image_ids=images)
                for kind in ("segm", "bbox")
            },
            "curves": as_metrics(curves) if curves else None,
        }
        if curves:
            names = {category.id: category.name for category in points.categories}
            draw_curves(ctx.result / "curves.png", curves, names)
    ctx.write("metrics.json", metrics)
    ctx.progress(Stage.EVALUATE, 1, 1, ProgressTimer())
    return metrics
