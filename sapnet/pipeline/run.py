"""The run: proposals, teacher, train, pseudo-masks, evaluate, export. Stages hand over on disk.

Every stage leaves its result in the work folder whole or not at all, so that the same run started
again goes on where the last one ended: proposals an image at a time, training at its last
checkpoint. The other stages are short, and start from their beginning.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from sapnet import __version__
from sapnet.config.resolve import resolve_config
from sapnet.config.schema import Config
from sapnet.data.annotations.coco import load_points, read_truth
from sapnet.data.exif import orientation_of
from sapnet.data.images import ImageProblem
from sapnet.data.orientation import AS_STORED
from sapnet.data.pixels import Ranges
from sapnet.data.value_ranges import dataset_ranges
from sapnet.errors import DiskFull, Stopped, is_disk_full
from sapnet.evaluation import average_precision, pseudo_mask_metrics
from sapnet.evaluation.calibration import reliability
from sapnet.evaluation.curves import as_metrics, draw_curves, precision_recall
from sapnet.evaluation.pseudo_masks import as_selected, ious_with, true_masks
from sapnet.evaluation.report import LossHistory, ReportInputs, write_report
from sapnet.evaluation.report.gallery import ROWS, draw_gallery
from sapnet.labelers.quality import rate
from sapnet.labelers.sapnet.teacher import (
    Lessons,
    fit_teacher,
    judge,
    read_judgements,
    write_judgements,
)
from sapnet.pipeline.contract import Stage
from sapnet.pipeline.failed_images import Quarantine
from sapnet.pipeline.label import label_image
from sapnet.pipeline.run_directory import claim
from sapnet.pipeline.spec import RunSpec
from sapnet.proposals import ProposalGenerator, build_generator
from sapnet.proposals.cached import BagMaker, Records, masks_digest
from sapnet.segmenters.backbones import WeightsOrigin
from sapnet.segmenters.checkpoint import save_artifact
from sapnet.training.loader import steps_total
from sapnet.training.loop import train
from sapnet.training.model import SapNet, build_model
from sapnet.training.warm_start import go_on_from
from sapnet.types import Bag, Category, Judgement, PointSet
from sapnet.utils import distributed
from sapnet.utils.files import atomic_write, file_sha256, write_text
from sapnet.utils.resources import ProgressTimer, peak_memory_mb

Emit = Callable[[dict[str, Any]], None]


class Run:
    """One run of the pipeline. `emit` takes each event; `should_stop` is asked between steps.

    Of several processes (sapnet/utils/distributed.py) all train; the main one makes the proposals
    and does what comes after training, and it alone writes.
    """

    def __init__(self, spec: RunSpec, emit: Emit, should_stop: Callable[[], bool]) -> None:
        self.spec, self.emit, self.should_stop = spec, emit, should_stop
        self.config: Config = resolve_config(
            spec.method, spec.preset, spec.overrides, spec.proposals.get("kind", "")
        )
        self.result = spec.workdir / "result"
        self.pixel_ranges: Ranges = {}
        self.seconds: dict[str, float] = self._read("seconds.json", {})
        self.losses = LossHistory(spec.workdir / "train" / "losses.json")
        self.bad = Quarantine(
            spec.workdir / "set_aside.json", len(spec.image_paths), spec.max_bad_images, emit
        )

    def __call__(self) -> dict[str, Any]:
        """Everything, to the end. Returns what `report.json` says. Errors: those of sapnet.errors;
        Stopped where it was asked to stop."""
        self.result.mkdir(parents=True, exist_ok=True)
        points = load_points(self.spec.points)
        self.bad.images = len(points.images)
        sizes = {image.id: image.size for image in points.images}
        truth = read_truth(self.spec.truth, sizes, self.orientation) if self.spec.truth else None
        generator = build_generator(self.spec.proposals, points)
        distributed.main_first(lambda: claim(self.spec.workdir, self.identity(points, generator)))
        model, origin = self.build_model(points.categories)
        self.emit(
            {
                "event": "start",
                "proposal_generator": generator.name,
                "weights_origin": origin.in_words(),
                "steps_total": steps_total(len(points.images), self.config.train),
            }
        )
        self.pixel_ranges = distributed.main_first(lambda: self.find_pixel_ranges(points))
        with self.stage(Stage.PROPOSALS):
            bags = distributed.main_first(lambda: self.make_proposals(generator, points))
        usable = self.bad.without(points, early=True)
        records = Records(usable, self.spec.image_paths, bags, self.config, self.pixel_ranges)
        if self.config.teacher.enabled:
            with self.stage(Stage.TEACHER):
                records = distributed.main_first(lambda: self.taught(model, records))
        with self.stage(Stage.TRAIN):
            undecided = self.train(model, records)
        if not distributed.is_main():
            return {"seconds": self.seconds, "peak_memory_mb": peak_memory_mb()}
        with self.stage(Stage.PSEUDO_MASKS):
            rows, detections = self.label(model.eval(), records)
        points = self.bad.without(points)
        records = records.without(points)
        with self.stage(Stage.EVALUATE):
            metrics = self.evaluate(points, bags, rows, detections, truth)
        with self.stage(Stage.EXPORT):
            meta = self.describe_model(points, generator, origin)
            save_artifact(self.result, model.solo, meta)
            draw_gallery(self.result / "gallery.png", records, rows, detections)
            self.progress("export", 1, 1, ProgressTimer())
        if self.bad.entries:
            self.emit({"event": "warning", "message": self.bad.summary()})
        report = {
            **meta,
            "set_aside": [asdict(entry) for entry in self.bad.entries],
            "seconds": self.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "undecided_bags": undecided,
            "losses": self.losses.means(),
            "metrics": metrics,
        }
        self._write("report.json", report)
        self.draw_report(report, points, bags, rows, truth)
        return report

    def orientation(self, image_id: int) -> int:
        """EXIF's, of an image of the run."""
        try:
            return orientation_of(self.spec.image_paths[image_id])
        except (OSError, LookupError):  # it will be set aside where its pixels are asked for
            return AS_STORED

    def find_pixel_ranges(self, points: PointSet) -> Ranges:
        """Of the dataset; those of an earlier attempt, where there was one."""
        path = self.spec.workdir / "pixel_ranges.json"
        if not path.exists():
            files = [self.spec.image_paths.get(image.id) for image in points.images]
            ranges = dataset_ranges([file for file in files if file is not None])
            if distributed.is_main():
                write_text(path, json.dumps(ranges) + "\n")
        found: Ranges = json.loads(path.read_text())
        return found

    def identity(self, points: PointSet, generator: ProposalGenerator) -> dict[str, Any]:
        """What makes it this run: with anything else its checkpoint means nothing."""
        initial = self.spec.initial_model
        return {
            **self.config.to_dict(),
            "seed": self.spec.seed,
            "points": hashlib.sha256(repr(points).encode("utf-8", "replace")).hexdigest()[:16],
            "proposals": generator.fingerprint()[:16],
            "masks": masks_digest(points),
            "initial_model": file_sha256(initial)[:16] if initial else None,
        }

    def build_model(self, categories: Sequence[Category]) -> tuple[SapNet, WeightsOrigin]:
        spec = self.spec
        if spec.initial_model is not None:
            model, origin = go_on_from(spec.initial_model, self.config, categories, spec.seed)
        else:
            weights, seed = spec.backbone_weights, spec.seed
            model, origin = build_model(self.config, len(categories), weights, seed)
        return model.to(distributed.device()), origin

    def make_proposals(
        self, generator: ProposalGenerator, points: PointSet
    ) -> dict[int, list[Bag]]:
        """The bags of every image, by image id. Images that fail are set aside."""
        bags: dict[int, list[Bag]] = {}
        eta = ProgressTimer()
        limit = self.config.data.max_proposals
        maker = BagMaker(
            self.spec.proposal_store, generator, self.spec.image_paths, limit, self.pixel_ranges
        )
        self.bad.read()  # of several processes the main one was first
        for index, (info, annotations) in enumerate(points):
            if info.id not in self.bad:
                with self.bad.watch(info, "proposals"):
                    bags[info.id] = maker(info, annotations)
            self.progress("proposals", index + 1, len(points.images), eta)
        return bags

    def taught(self, model: SapNet, records: Records) -> Records:
        """The records with what the teacher says of them, less those that it cannot read."""
        while True:
            self.bad.read()
            records = records.without(self.bad.without(records.points, early=True))
            try:
                records.judgements = self.judgements(model, records)
                return records
            except ImageProblem:
                bad = list(records.unreadable())
                if not bad:
                    raise
                for info, error in bad:
                    self.bad.take(info, "teacher", error)

    def judgements(self, model: SapNet, records: Records) -> dict[int, Judgement]:
        """What a teacher, taught from the bags alone, says of each; by annotation id."""
        path = self.spec.workdir / "train" / "teacher.npz"
        if not path.exists():
            eta = ProgressTimer()
            lessons = Lessons(model.solo.backbone.body, records, self.config)
            teacher = fit_teacher(
                lessons,
                self.config.teacher,
                seed=self.spec.seed,
                report=lambda step, of, losses: self.progress(
                    "teacher", step, of, eta, losses=losses
                ),
            )
            found: dict[int, Judgement] = {}
            for record, lesson in zip(records, lessons, strict=True):
                ids = [annotation.id for annotation in record.annotations]
                found |= zip(ids, judge(teacher, lesson), strict=True)
                if self.should_stop():
                    raise Stopped("stopped on request in teacher, which starts again")
            write_judgements(path, found)
        return read_judgements(path)

    def train(self, model: SapNet, records: Records) -> int:
        eta = ProgressTimer()

        def report(step: int, of: int, losses: dict[str, float]) -> None:
            rounded = {name: round(value, 5) for name, value in losses.items()}
            if distributed.is_main():
                self.losses.add(step, of, losses)
            self.progress("train", step, of, eta, losses=rounded, stoppable=False)

        undecided = train(
            model,
            records,
            seed=self.spec.seed,
            checkpoint=self.spec.workdir / "train" / "checkpoint.pt",
            report=report,
            should_stop=self.should_stop,
            warn=lambda message: self.emit({"event": "warning", "message": message}),
            on_bad=lambda info, error: self.bad.take(info, "train", error),
        )
        if undecided:
            self.emit({"event": "warning", "message": f"{undecided} bags had no best proposal"})
        return undecided

    def label(
        self, model: SapNet, records: Records
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Pseudo-masks and the segmenter's own detections on the training images."""
        category = {label: c for c, label in records.points.label_of.items()}
        rows: list[dict[str, Any]] = []
        detections: list[dict[str, Any]] = []
        eta = ProgressTimer()
        pictured = 0
        for index, info in enumerate(records.points.images):
            if info.id not in self.bad:
                with self.bad.watch(info, "pseudo-masks"):
                    record = records[index]
                    # without truth, detections are for the gallery alone
                    pictured += bool(record.annotations)
                    wanted = self.spec.truth is not None or pictured <= ROWS
                    found = label_image(model, record, wanted)
                    rows += found.pseudo_masks
                    for detection in found.detections:
                        label = detection.pop("label")
                        detections.append(
                            {"image_id": info.id, "category_id": category[label], **detection}
                        )
            self.progress("pseudo-masks", index + 1, len(records), eta)
        rate(rows)
        with atomic_write(self.result / "pseudo_masks.ndjson") as file:
            file.writelines(f"{json.dumps(row)}\n".encode() for row in rows)
        return rows, detections

    def evaluate(
        self,
        points: PointSet,
        bags: dict[int, list[Bag]],
        rows: list[dict[str, Any]],
        detections: list[dict[str, Any]],
        truth: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """`metrics.json`: figures where truth was given, counts in any case."""
        by_annotation = {bag.annotation_id: bag for group in bags.values() for bag in group}
        counts = [len(bag) for bag in by_annotation.values()]
        metrics: dict[str, Any] = {
            "pseudo_masks": None,
            "model": None,
            "proposals": {"mean_bag_size": round(sum(counts) / max(len(counts), 1), 3)},
        }
        if truth is not None:
            images = {image.id for image in points.images}
            curves = precision_recall(detections, truth, image_ids=images)
            figures = pseudo_mask_metrics(rows, by_annotation, points, truth)
            before = [as_selected(row) for row in rows]
            picked = pseudo_mask_metrics(before, by_annotation, points, truth)
            figures["selected_miou_mask"] = picked["miou_mask"]
            figures["quality"] = reliability(rows, ious_with(rows, true_masks(points, truth)))
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
                draw_curves(self.result / "curves.png", curves, names)
        self._write("metrics.json", metrics)
        self.progress("evaluate", 1, 1, ProgressTimer())
        return metrics

    def describe_model(
        self, points: PointSet, generator: ProposalGenerator, origin: WeightsOrigin
    ) -> dict[str, Any]:
        """What stands beside the weights."""
        packages = ("torch", "torchvision", "numpy", "pycocotools")
        return {
            "categories": [
                asdict(c) for c in sorted(points.categories, key=lambda category: category.id)
            ],
            "config": self.config.to_dict(),
            "weights": asdict(origin),
            "seed": self.spec.seed,
            "pixel_ranges": self.pixel_ranges,
            "proposals": {
                "generator": generator.name,
                "fingerprint": generator.fingerprint(),
                # the masks that a user brought are data, not a setting
                "settings": {k: v for k, v in self.spec.proposals.items() if k != "document"},
            },
            "images": len(points.images),
            "annotations": len(points.annotations),
            "versions": {
                "sapnet": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in packages},
            },
        }

    def draw_report(
        self,
        report: dict[str, Any],
        points: PointSet,
        bags: dict[int, list[Bag]],
        rows: list[dict[str, Any]],
        truth: dict[str, Any] | None,
    ) -> None:
        """`report.html`. A run is not lost for want of a picture: that is a warning."""
        try:
            true = true_masks(points, truth) if truth is not None else {}
            story = ReportInputs(
                report=report,
                points=points,
                rows=rows,
                bag_sizes=[len(bag) for image in points.images for bag in bags[image.id]],
                paths=self.spec.image_paths,
                overrides=self.spec.overrides,
                true=true,
                ious=ious_with(rows, true),
            )
            write_report(self.result / "report.html", story)
        except Exception as error:
            if is_disk_full(error):
                raise
            what = f"the report was not drawn: {type(error).__name__}: {error}"
            self.emit({"event": "warning", "message": what})

    def progress(
        self,
        stage: str,
        step: int,
        of: int,
        eta: ProgressTimer,
        *,
        stoppable: bool = True,
        **more: Any,
    ) -> None:
        """Tell how far a stage is; between images it is also where a stop takes hold."""
        seconds = round(eta(step, of), 1)
        self.emit(
            {
                "event": "progress",
                "stage": stage,
                "step": step,
                "of": of,
                "eta_seconds": seconds,
                **more,
            }
        )
        self.keep_room()
        if stoppable and step < of and self.should_stop():
            raise Stopped(f"stopped on request in {stage}, {step} of {of} done")

    def keep_room(self) -> None:
        """Raises DiskFull before the disk is quite full: others need it too."""
        reserve = self.spec.reserve_bytes
        if reserve and (free := shutil.disk_usage(self.spec.workdir).free) < reserve:
            raise DiskFull(
                f"no space is left on the disk of {self.spec.workdir}: {free >> 20} MB are free, "
                f"{reserve >> 20} MB must stay so. Make room, and start it again"
            )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a stage to those of earlier attempts."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 2)
            self._write("seconds.json", self.seconds)

    def _read(self, name: str, default: Any) -> Any:
        path = self.spec.workdir / "result" / name
        return json.loads(path.read_text()) if path.exists() else default

    def _write(self, name: str, value: Any) -> None:
        if distributed.is_main():
            write_text(self.result / name, json.dumps(value, indent=2) + "\n")
