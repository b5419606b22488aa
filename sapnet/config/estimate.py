"""How long a training will take: a model of its stages' costs, scaled by what was measured.

The costs are those of two cores without a GPU (docs/results.md, "Time before the start"). What was
measured on the machine itself comes before them: trainings that are finished, else its speed beside
that of the reference. Imports no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sapnet.config.schema import Config
from sapnet.types import PointSet

START = "start"
"""In place of a stage: interpreter, torch, weights."""
_BACKBONE = {
    "mobilenet_v2": (6.0, (24, 32, 96, 1280)),
    "efficientnet_lite0": (7.0, (24, 40, 112, 320)),
    "resnet18": (36.0, (64, 128, 256, 512)),
    "resnet34": (73.0, (64, 128, 256, 512)),
    "resnet50": (82.0, (256, 512, 1024, 2048)),
    "resnet101": (156.0, (256, 512, 1024, 2048)),
}
"""Billions of multiplications for a megapixel, and the channels at strides 4, 8, 16 and 32."""
_SAM_ENCODER = {
    "vit_b": 370.0,
    "vit_l": 1310.0,
    "vit_h": 2730.0,
    "efficientvit_l0": 35.0,
    "efficientvit_l1": 49.0,
    "efficientvit_l2": 69.0,
    "efficientvit_xl0": 185.0,
    "efficientvit_xl1": 322.0,
    "tiny": 66.0,
    "small": 79.0,
    "base-plus": 131.0,
    "large": 406.0,
}
"""Billions of multiplications for an image, by model type."""
_LEAST_SECONDS = 1.0
"""Stages that took less tell nothing of the machine."""
_LEAST_FACTOR = 0.1
"""A stage that took less than this share of its model was not done anew: proposals are kept."""


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Annotated images of one size in pixels: how many, and with how many objects in all."""

    width: int
    height: int
    images: int
    objects: int


@dataclass(frozen=True, slots=True)
class Workload:
    """What of a dataset and a request the time of a training depends on.

    Attributes:
        proposals: kind of the generator, as settings name it.
        model_type: of SAM, where the kind is one; None is the smallest.
        has_truth: whether there is ground truth to evaluate against.
    """

    groups: tuple[SizeGroup, ...]
    proposals: str
    model_type: str | None = None
    has_truth: bool = False

    @classmethod
    def of(
        cls,
        points: PointSet,
        proposals: str,
        model_type: str | None = None,
        *,
        has_truth: bool = False,
    ) -> "Workload":
        """The workload of a dataset whose points are at hand."""
        objects = Counter(annotation.image_id for annotation in points.annotations)
        annotated = [image for image in points.images if image.id in objects]
        images = Counter(image.size for image in annotated)
        of_size: Counter[tuple[int, int]] = Counter()
        for image in annotated:
            of_size[image.size] += objects[image.id]
        groups = (SizeGroup(w, h, count, of_size[h, w]) for (h, w), count in images.items())
        return cls(tuple(groups), proposals, model_type, has_truth)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(group.images for group in self.groups)

    @property
    def objects(self) -> int:
        """Number of objects."""
        return sum(group.objects for group in self.groups)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, with its whole memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a training runs on.

    Attributes:
        speed: of its cores together, beside the reference's.
    """

    cores: int
    gpu: Gpu | None = None
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class FinishedTraining:
    """A training that is over.

    Attributes:
        seconds: by stage, as measured.
    """

    config: Config
    workload: Workload
    machine: Machine
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a training will take.

    Attributes:
        seconds: by stage, in order; `START` is what comes before the first.
        low, high: bounds of the total, seconds; see `basis`.
        basis: what the estimate comes from, for people.
    """

    seconds: dict[str, float]
    low: float
    high: float
    basis: str

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    def in_words(self) -> str:
        """The total, its bounds and where they come from; then the stages, in a second line."""
        bounds = f"{_in_words(self.low)} to {_in_words(self.high)}"
        stages = ", ".join(f"{name} {_in_words(value)}" for name, value in self.seconds.items())
        return f"about {_in_words(self.total)} ({bounds}), by {self.basis}\n{stages}"


def estimate(
    config: Config,
    workload: Workload,
    machine: Machine,
    finished: Sequence[FinishedTraining] = (),
) -> Estimate:
    """Estimate the time of a training.

    Args:
        finished: trainings on such a machine, the newest first. Of those with the preset and the
            proposals of this one each stage's own time is taken, else that of all.
    """
    near = [
        f
        for f in finished
        if (f.config.preset, f.workload.proposals) == (config.preset, workload.proposals)
    ]
    factors = _factors(near or finished)
    if not factors:
        modelled = _model(config, workload, machine)
        spread, basis = (4.0, "a model of the costs, which was fitted on machines without a GPU")
        if machine.gpu is None:
            spread, basis = 2.0, "a model of the costs and a measurement of this machine's speed"
        return _bounded(modelled, spread, basis)
    usual = median(factors.values())
    modelled = _model(config, workload, Machine(machine.cores, machine.gpu))
    seconds = {stage: value * factors.get(stage, usual) for stage, value in modelled.items()}
    count = len(near or finished)
    which = f"{count} finished training{'s' if count > 1 else ''}"
    if near:
        return _bounded(seconds, 1.5, f"{which} with this preset")
    return _bounded(seconds, 2.0, f"{which} with other settings")


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3_600:.1f} hours" if seconds < 36_000 else f"{seconds / 3_600:.0f} hours"


def _bounded(seconds: dict[str, float], spread: float, basis: str) -> Estimate:
    total = sum(seconds.values())
    return Estimate(seconds, total / spread, total * spread, basis)


def _factors(finished: Iterable[FinishedTraining]) -> dict[str, float]:
    """Seconds measured beside those of the model at the reference's speed, medians by stage."""
    ratios: dict[str, list[float]] = {}
    for training in finished:
        machine = Machine(training.machine.cores, training.machine.gpu)
        for stage, modelled in _model(training.config, training.workload, machine).items():
            measured = training.seconds.get(stage)
            if measured is None or measured < _LEAST_SECONDS:
                continue
            if measured > _LEAST_FACTOR * modelled:
                ratios.setdefault(stage, []).append(measured / modelled)
    return {stage: median(values) for stage, values in ratios.items()}


def _model(config: Config, workload: Workload, machine: Machine) -> dict[str, float]:
    """Seconds by stage. Rates are fitted to trainings on two cores, docs/results.md."""
    per_multiplications, host = 1.0, 1.0
    if machine.gpu is not None:
        per_multiplications = 1 / 40
    else:
        host = per_multiplications = 1 / machine.speed
    images, objects = workload.images, workload.objects
    if not images:
        return {START: 6.0 * host}
    mean_objects = objects / images
    original = sum(g.images * g.width * g.height for g in workload.groups) / 1e6
    pixels = sum(g.images * _input_megapixels(config, g) for g in workload.groups) / images
    network = _multiplications(config, pixels)
    trained = images - held_out_count(config, images)
    batch = min(config.train.batch_size, trained)
    steps = max(-(-trained // batch) * config.train.epochs, config.train.min_steps)
    labelled = (0.05 * network) * per_multiplications + (0.2 * pixels + 0.011 * mean_objects) * host
    step = batch * (0.067 * network * per_multiplications + 0.0013 * mean_objects * host)
    seconds = {
        START: 6.0 * host,
        "proposals": _proposals(workload, original, per_multiplications, host),
    }
    if config.teacher.enabled:
        teacher_batch = min(config.teacher.batch_size, images)
        epochs = -(-images // teacher_batch) * config.teacher.epochs
        seconds["teacher"] = max(epochs, config.teacher.min_steps) * (
            0.06 * host + 0.3 * teacher_batch * pixels * per_multiplications
        ) + images * (0.03 * network * per_multiplications + 0.002 * mean_objects * host)
    validations = min(config.train.validations, max(config.train.epochs, 1))
    seconds["train"] = steps * (step + 0.2 * host) + validations * (images - trained) * labelled
    seconds["pseudo-masks"] = images * labelled
    seconds["evaluate"] = (0.5 + (0.001 * objects if workload.has_truth else 0.0)) * host
    seconds["export"] = (1.0 + 0.0005 * objects) * host
    return seconds


def held_out_count(config: Config, images: int) -> int:
    """How many images a training holds out, about."""
    train = config.train
    if not train.hold_out or images < max(train.hold_out_from, train.hold_out_least + 1):
        return 0
    return max(math.ceil(train.hold_out * images), train.hold_out_least)


def _proposals(workload: Workload, megapixels: float, per_multi: float, host: float) -> float:
    objects, seconds = workload.objects, 0.0
    if "hierarchy" in workload.proposals:
        seconds += (0.94 * megapixels + 0.0052 * objects) * host
    if "prompter" in workload.proposals:
        seconds += 0.06 * objects * per_multi
    if workload.proposals in ("sam", "sam2"):
        smallest = "vit_b" if workload.proposals == "sam" else "tiny"
        encoder = _SAM_ENCODER.get(workload.model_type or smallest, _SAM_ENCODER["vit_b"])
        seconds += (0.022 * encoder * workload.images + 0.06 * objects) * per_multi
    return seconds


def _input_megapixels(config: Config, group: SizeGroup) -> float:
    """Of an image of the group as the network sees it."""
    short, long = sorted((group.width, group.height))
    side = sum(config.data.short_sides) / len(config.data.short_sides)
    scale = min(side / short, config.data.max_long_side / long)
    return group.width * group.height * scale**2 / 1e6


def _multiplications(config: Config, megapixels: float) -> float:
    """Billions of multiplications of the segmenter for an image, one pass forward."""
    per_megapixel, channels = _BACKBONE[config.backbone.name]
    width, solo = config.backbone.fpn_channels, config.solo
    areas = [1 / 4**level for level in range(2, 6)]  # of the strides 4 to 32, a pixel
    lateral = sum(c * width * area for c, area in zip(channels, areas, strict=True)) / 1e3
    pyramid = lateral + 9 * width**2 * sum(areas) / 1e3
    masks = areas[0] * 9 * solo.mask_channels * (width + 2 * solo.mask_channels) / 1e3
    cells = sum(side**2 for side in solo.num_grids)
    head = cells * 9 * solo.channels**2 * solo.stacked_convs * 2 / 1e9
    return megapixels * (per_megapixel + pyramid + masks) + head
