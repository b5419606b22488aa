"""The context of a run's stages: settings, folders, events and progress."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import UNSET, UnsetType

from sapnet.config.schema import Config
from sapnet.data.pixels import Ranges
from sapnet.errors import Stopped
from sapnet.evaluation.report import LossHistory
from sapnet.pipeline.events import EventSink, Progressed, Warned
from sapnet.pipeline.failed_images import FailedImages
from sapnet.pipeline.spec import RunSpec
from sapnet.utils import distributed
from sapnet.utils.files import write_text
from sapnet.utils.resources import ProgressTimer, keep_room


class RunContext:
    """The context of one run.

    Attributes:
        spec: what the run was given. config: its settings, resolved.
        emit_event: takes each event. should_stop: asked between steps.
        folder: `train/` of the work folder, for what training needs. result: `result/`, for what
            comes of the run.
        seconds: by stage, of earlier attempts too. losses: of the training, likewise.
        failed: the images that the run goes on without.
        pixel_ranges: of the dataset, by which images of more than 8 bits are read.
    """

    def __init__(
        self, spec: RunSpec, config: Config, emit_event: EventSink, should_stop: Callable[[], bool]
    ) -> None:
        self.spec, self.config, self.emit_event, self.should_stop = (
            spec,
            config,
            emit_event,
            should_stop,
        )
        self.pixel_ranges: Ranges = {}
        self.folder, self.result = spec.workdir / "train", spec.workdir / "result"
        path = self.result / "seconds.json"
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.losses = LossHistory(self.folder / "losses.json")
        self.failed = FailedImages(
            spec.workdir / "set_aside.json", len(spec.image_paths), spec.max_bad_images, emit_event
        )

    def warn(self, message: str) -> None:
        """Tell the user what ends nothing."""
        self.emit_event(Warned(message))

    def progress(
        self,
        stage: str,
        step: int,
        of: int,
        timer: ProgressTimer,
        *,
        losses: dict[str, float] | UnsetType = UNSET,
        stoppable: bool = True,
    ) -> None:
        """Tell how far a stage is; between images it is also where a stop takes hold."""
        self.emit_event(Progressed(stage, step, of, round(timer(step, of), 1), losses))
        self.keep_room()
        if stoppable and step < of and self.should_stop():
            raise Stopped(f"stopped on request in {stage}, {step} of {of} done")

    def keep_room(self) -> None:
        """Raises DiskFull before the disk is quite full: others need it too."""
        keep_room(self.spec.workdir, self.spec.reserve_bytes)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a stage to those of earlier attempts."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 2)
            self.write("seconds.json", self.seconds)

    def write(self, name: str, value: Any) -> None:
        """JSON into the result folder; of several processes the main one does."""
        if distributed.is_main():
            write_text(self.result / name, json.dumps(value, indent=2) + "\n")
