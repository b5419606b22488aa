"""The run: proposals, preparation, train, pseudo-masks, evaluate, export. Stages hand over on disk.

Every stage leaves its result in the work folder whole or not at all, so that the same run started
again goes on where the last one ended: proposals an image at a time, training at its last
checkpoint. The other stages are short, and start from their beginning.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sapnet.config.resolve import resolve_config
from sapnet.config.schema import Config
from sapnet.data.annotations.coco import load_points, read_truth
from sapnet.data.annotations.skipped import what_figures_lack
from sapnet.data.exif import AS_STORED, orientation_of
from sapnet.data.masks import Size
from sapnet.evaluation.report.gallery import draw_gallery
from sapnet.pipeline import stages
from sapnet.pipeline.calibration import calibrate_scores
from sapnet.pipeline.context import RunContext
from sapnet.pipeline.contract import Stage
from sapnet.pipeline.events import EventSink, Started
from sapnet.pipeline.image_failure import FailedImage
from sapnet.pipeline.outputs import describe_model, draw_report, run_identity
from sapnet.pipeline.preset import given_body, with_preset
from sapnet.pipeline.run_directory import OtherRun, check_run_identity, remove_run
from sapnet.pipeline.spec import RunSpec
from sapnet.pipeline.validation import Validator, held_out_images, not_annotated
from sapnet.proposals import build_generator
from sapnet.proposals.base import ProposalGenerator
from sapnet.segmenters.checkpoint import save_artifact
from sapnet.training.dataset import TrainingSet
from sapnet.training.loader import steps_total
from sapnet.training.model import BUILDERS, Builders
from sapnet.types import PointSet
from sapnet.utils import distributed
from sapnet.utils.device import describe_machine
from sapnet.utils.resources import ProgressTimer, peak_memory_mb


def left_out(empty: int, of: int) -> str:
    """Say that images are not trained on."""
    return (
        f"{empty} of {of} images have no annotations: they are taken as not annotated yet, and not "
        "trained on; train.empty_images=true takes them as background"
    )


class Run:
    """One run of the pipeline.

    Of several processes (sapnet/utils/distributed.py) all train; the main one makes the proposals
    and does what comes after training, and it alone writes.
    """

    def __init__(
        self,
        spec: RunSpec,
        emit_event: EventSink,
        should_stop: Callable[[], bool],
        builders: Builders = BUILDERS,
    ) -> None:
        """Resolve the configuration.

        Args:
            spec: what the run is given.
            emit_event: takes each event.
            should_stop: asked between steps.
            builders: of another segmenter or labeler than the configuration asks for.
        """
        spec = with_preset(spec, emit_event)
        self.spec, self.builders = spec, builders
        self.config: Config = resolve_config(
            spec.method,
            spec.preset,
            spec.overrides,
            spec.proposals.get("kind", ""),
            given_body(spec),
        )
        self.context = RunContext(self.spec, self.config, emit_event, should_stop)

    def __call__(self) -> dict[str, Any]:
        """Run all stages.

        Returns:
            The content of `report.json`.

        Raises:
            SapnetError: those of `sapnet.errors`; Stopped where `should_stop` said so.
        """
        points = self._points()
        sizes = {image.id: image.size for image in points.images}
        truth = self._truth(sizes) if self.spec.truth else None
        generator = build_generator(self.spec.proposals, points)
        distributed.main_first(lambda: self._take_folder(points, generator))
        ctx = self.context
        ctx.result.mkdir(parents=True, exist_ok=True)
        ctx.failed.images = len(points.images)
        ctx.failed.take(FailedImage(**entry) for entry in self.spec.failed_images)
        model, origin = stages.make_model(ctx, points.categories, self.builders)
        validated, untrained = held_out_images(ctx, points)
        tested = untrained - validated
        empty = not_annotated(ctx, points)
        if empty:
            ctx.warn(left_out(len(empty), len(points.images)))
        total = steps_total(len(points.images) - len(untrained | empty), self.config.train)
        ctx.emit_event(Started(generator.name, origin.in_words(), total))
        ctx.pixel_ranges = distributed.main_first(
            lambda: stages.find_pixel_ranges(ctx, points.without(tested))
        )
        with ctx.stage(Stage.PROPOSALS):
            bags = distributed.main_first(lambda: stages.make_proposals(ctx, generator, points))
        usable = ctx.failed.without(points, early=True)
        dataset = TrainingSet(usable, self.spec.image_paths, bags, ctx.pixel_ranges)
        if model.labeler.preparation is not None:
            with ctx.stage(model.labeler.preparation):
                dataset = distributed.main_first(
                    lambda: stages.prepare_labeler(ctx, model, dataset, tested | empty)
                )
        trained = dataset.without(dataset.points.without(untrained | empty))
        held_out = dataset.without(dataset.points.only(validated))
        validator = Validator(ctx, held_out, truth) if len(held_out) else None
        with ctx.stage(Stage.TRAIN):
            undecided = stages.train_model(ctx, model, trained, validator)
        if not distributed.is_main():
            return {"seconds": ctx.seconds, "peak_memory_mb": peak_memory_mb()}
        with ctx.stage(Stage.PSEUDO_MASKS):
            masks, detections = stages.label_images(ctx, model.eval(), dataset, untrained)
        points = ctx.failed.without(points)
        dataset = dataset.without(points)
        with ctx.stage(Stage.EVALUATE):
            metrics = stages.evaluate(
                ctx, points, bags, masks, detections, truth, validator, tested
            )
        with ctx.stage(Stage.EXPORT):
            scores = calibrate_scores(points, masks, detections, validator)
            meta = describe_model(ctx, points, generator, origin, metrics["validation"], scores)
            save_artifact(ctx.result, model.segmenter, meta)
            draw_gallery(ctx.result / "gallery.png", dataset, masks, detections)
            ctx.progress(Stage.EXPORT, 1, 1, ProgressTimer())
        if ctx.failed.entries:
            ctx.warn(ctx.failed.summary())
        report = {
            **meta,
            "machine": describe_machine(),
            "set_aside": [asdict(entry) for entry in ctx.failed.entries],
            "seconds": ctx.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "undecided_bags": undecided,
            "losses": ctx.losses.means(),
            "metrics": metrics,
        }
        ctx.write("report.json", report)
        draw_report(ctx, report, points, bags, masks, truth)
        return report

    def plan(self) -> dict[str, Any]:
        """Return what whoever makes proposals of some images needs to know of all of them."""
        ctx, points = self.context, self._points()
        ctx.result.mkdir(parents=True, exist_ok=True)
        validated, untrained = held_out_images(ctx, points)
        ranges = stages.find_pixel_ranges(ctx, points.without(untrained - validated))
        return {"max_proposals": self.config.data.max_proposals, "ranges": ranges}

    def _points(self) -> PointSet:
        source = self.spec.points
        return source if isinstance(source, PointSet) else load_points(source)

    def _take_folder(self, points: PointSet, generator: ProposalGenerator) -> None:
        """Note in the work folder whose it is, and read what earlier attempts have left there.

        Raises:
            OtherRun: it is another run's.
        """
        ctx, workdir = self.context, self.spec.workdir
        identity = run_identity(ctx, points, generator)
        try:
            check_run_identity(workdir, identity)
        except OtherRun as error:
            if not self.spec.own_folder:
                raise
            ctx.warn(f"what another release had begun cannot go on, and it begins anew: {error}")
            remove_run(workdir)
            check_run_identity(workdir, identity)
        self.context = RunContext(self.spec, self.config, ctx.emit_event, ctx.should_stop)

    def _truth(self, sizes: dict[int, Size]) -> dict[str, Any]:
        """The usable part of the ground truth, since no training should fail for the rest."""
        assert self.spec.truth is not None
        truth = read_truth(self.spec.truth, sizes, self.orientation)
        if lacking := what_figures_lack(truth):
            self.context.warn(lacking)
        return truth

    def orientation(self, image_id: int) -> int:
        """EXIF's, of an image of the run."""
        try:
            return orientation_of(self.spec.image_paths[image_id])
        except (OSError, LookupError):  # it fails where its pixels are read
            return AS_STORED
