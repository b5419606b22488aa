"""The images of each step: which, how they are drawn, and read while the step before it runs."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from sapnet.config.schema import Config, TrainConfig
from sapnet.data.augmentation import Augmentation, draw_augmentation, jitter_color
from sapnet.data.images import ImageProblem
from sapnet.data.sampler import Sampler, Step
from sapnet.data.samples import ImageRecord, Sample, load_sample
from sapnet.training.dataset import image_infos
from sapnet.types import ImageInfo
from sapnet.utils import distributed

OnFailedImage = Callable[[ImageInfo, ImageProblem], None]
FailedReads = list[tuple[ImageInfo, ImageProblem]]


class BatchLoader:
    """The images of each step. Order, sizes, flips and colours are functions of (seed, step)."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        config: Config,
        seed: int,
        on_failed_image: OnFailedImage | None = None,
    ) -> None:
        """Begin a run.

        Args:
            records: read when needed, on threads.
            config: of the run.
            seed: of the run.
            on_failed_image: called with an image that cannot be read, in whose place the next one
                is taken; without it the run fails.
        """
        self._records, self._config, self._on_failed_image = records, config, on_failed_image
        upright = [info.height > info.width for info in image_infos(records)]
        self.sampler = Sampler(
            count=len(records), batch_size=config.train.batch_size, seed=seed, upright=upright
        )
        self.total = steps_total(len(records), config.train)
        self.per_epoch = self.sampler.steps_per_epoch
        # on a CPU the step takes all cores itself
        threads = min(os.cpu_count() or 1, 4) if torch.cuda.is_available() else 1
        self._pool = ThreadPoolExecutor(threads, "images")
        self._ahead: tuple[Step, list[PendingSample]] | None = None

    def step(self, index: int) -> Step:
        """The step of this index, 0 to `total` - 1."""
        return Step(index, self.total, self.per_epoch)

    def __call__(self, step: Step) -> tuple[list[Sample], list[torch.Generator]]:
        """This process's images of a step, and their generators.

        They are augmented by draws of these. Those of the next step are begun.
        """
        begun, pending = self._ahead or (None, [])
        if begun != step:
            pending = self._begin(step)
        self._ahead = (step.next, self._begin(step.next)) if step.index + 1 < step.total else None
        samples = []
        for one in pending:
            sample, failed = one.sample.result()
            for info, error in failed:
                # of several processes the others would not know
                if self._on_failed_image is None or distributed.processes() > 1:
                    raise error
                self._on_failed_image(info, error)
            if sample is None:
                raise failed[0][1]
            samples.append(sample)
        return samples, [one.generator for one in pending]

    def _begin(self, step: Step) -> list["PendingSample"]:
        sampler, data = self.sampler, self._config.data
        sides = data.short_sides
        side = sides[int(torch.randint(len(sides), (), generator=sampler.generator(step.index)))]
        pending = []
        for place, index in distributed.share(list(enumerate(sampler.batch(step.index), start=1))):
            generator = sampler.generator(step.index, place)
            change = draw_augmentation(data, generator)
            pending.append(
                PendingSample(self._pool.submit(self._read, index, side, change), generator)
            )
        return pending

    def _read(
        self, index: int, side: int, change: Augmentation
    ) -> tuple[Sample | None, FailedReads]:
        """The sample of an image, or of the next one that can be read; and those that cannot."""
        failed: FailedReads = []
        for number in range(index, index + len(self._records)):
            record = self._records[number % len(self._records)]
            try:
                short_side = max(round(side * change.scale), 1)
                sample = load_sample(record, self._config.data, short_side, change.flip)
                if change.color is not None:
                    sample = jitter_color(sample, change.color)
                return sample, failed
            except ImageProblem as error:
                failed.append((record.info, error))
        return None, failed


@dataclass(frozen=True)
class PendingSample:
    """An image on its way, and the generator of what else is drawn for it."""

    sample: "Future[tuple[Sample | None, FailedReads]]"
    generator: torch.Generator


def steps_total(count: int, config: TrainConfig) -> int:
    """The number of steps of a run over `count` images: its epochs, or `min_steps` where more."""
    sampler = Sampler(count=count, batch_size=config.batch_size, seed=0)
    return max(sampler.steps_per_epoch * config.epochs, config.min_steps)
