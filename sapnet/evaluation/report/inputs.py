"""The inputs of a report: a finished run, as the export stage has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sapnet.labelers.quality import usual_quality_signals
from sapnet.types import PointAnnotation, PointSet, PseudoMask, Rle


@dataclass(frozen=True)
class ReportInputs:
    """A finished run.

    Attributes:
        report: what `report.json` says.
        points: those that were used.
        masks: the delivered ones, with their quality.
        bag_sizes: proposals of each point.
        paths: image files by image id.
        overrides: of the run's settings.
        true: ground-truth masks by annotation id.
        ious: IoU of the delivered masks with them, by annotation id.
    """

    report: Mapping[str, Any]
    points: PointSet
    masks: Sequence[PseudoMask]
    bag_sizes: Sequence[int]
    paths: Mapping[int, Path]
    overrides: Mapping[str, Any]
    true: Mapping[int, Rle]
    ious: Mapping[int, float]

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the run."""
        return self.report["config"]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The content of `metrics.json`."""
        return self.report["metrics"]

    @cached_property
    def usual(self) -> Mapping[str, float]:
        """The median of each quality signal over the masks of this run."""
        return usual_quality_signals(self.masks)

    def annotation_of(self, mask: PseudoMask) -> PointAnnotation:
        """The point that a mask belongs to."""
        group = self.points.annotations_of[mask.image_id]
        return next(annotation for annotation in group if annotation.id == mask.id)
