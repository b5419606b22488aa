"""Every setting of a run: a dataclass a stage, presets as functions, overrides by dotted name.

Imports no torch: the API checks a request with `resolve_config` before it accepts the job.
Each field marked *tunable* in the algorithm's description is here under its own name.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from sapnet.config.methods import FOREIGN, METHODS
from sapnet.config.overrides import in_words, override, override_names
from sapnet.errors import InvalidConfig
from sapnet.types import Method, Precision


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    name: Literal["resnet50", "resnet101", "mobilenet_v2"] = "resnet50"
    fpn_channels: int = 256
    frozen_stages: int = 1
    fpn_norm: Literal["none", "batch", "group"] = "none"
    p6: Literal["pool", "conv"] = "pool"


@dataclass(frozen=True, slots=True)
class MilConfig:
    """Proposal selection: PSM, PDG, PNPG, SRM, BMS, SASD (Eqs 1-13, Algorithms 1 and 2).

    instance_branch: null takes it where there are two classes or more.
    """

    # what runs: the rows of the ladder (Table 6)
    rule: Literal["learned", "confidence", "consensus"] = "learned"
    point_distance: bool = True
    refinement: bool = True
    positives: bool = True
    negatives: bool = True
    box_mining: bool = True
    completeness: bool = True
    # features
    fc_channels: int = 1024
    roi_sampling: int = 2
    normalize_features: bool = False
    # PSM
    softmax_over_k: bool = False
    instance_branch: bool | None = True
    psm_weight: float = 0.25
    distance_exponent: float = 0.015
    exclude_foreign_points: bool = True
    # PNPG
    positive_scales: tuple[float, ...] = (0.05, 0.1, 0.15)
    background_negatives: int = 500
    background_iou: float = 0.3
    part_negatives: int = 6
    part_iou: float = 0.5
    negative_loss: Literal["focal", "cross_entropy"] = "focal"
    # SRM
    alpha: float = 0.25
    gamma: float = 2.0
    # BMS
    mining_top_k: int = 3
    mining_iou: float = 0.6
    mining_containing_iou: float = 0.3
    # SASD
    completeness_top_k: int = 3
    completeness_weight: float = 1.0
    completeness_warmup: float = 0.1
    completeness_floor: float = 0.25
    # what the bag itself knows: exponents on the selection score, 0 is off
    prior_medoid: float = 0.0
    prior_confidence: float = 0.0
    prior_area: float = 0.0
    # what the teacher says, where there is one (sapnet/teacher)
    prior_contrast: float = 0.0
    prior_overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A small segmenter on frozen features that learns from all bags before training begins, and
    whose figures for each proposal are priors of the selection.

    cells: a window's side. points_per_image: drawn a step. held, free: a cell counts as object
    where at least this share of a bag's masks holds it, as ground where at most this share does.
    agreement: the exponent of its own overlap in the posterior that its mask learns from, after
    `warmup`, a share of the steps.
    """

    enabled: bool = False
    epochs: int = 4
    min_steps: int = 150
    batch_size: int = 4
    learning_rate: float = 2e-3
    channels: int = 32
    hidden: int = 16
    cells: int = 32
    points_per_image: int = 24
    held: float = 0.8
    free: float = 0.05
    agreement: float = 8.0
    warmup: float = 0.3


@dataclass(frozen=True, slots=True)
class SoloConfig:
    """SOLOv2: grids, scale ranges, widths, loss weights, Matrix NMS."""

    num_grids: tuple[int, ...] = (40, 36, 24, 16, 12)
    scale_ranges: tuple[tuple[float, float], ...] = (
        (1, 96),
        (48, 192),
        (96, 384),
        (192, 768),
        (384, 2048),
    )
    channels: int = 512
    stacked_convs: int = 4
    mask_channels: int = 256
    mask_feature_channels: int = 128
    center_region: float = 0.2
    dice_weight: float = 3.0
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    nms_pre: int = 500
    score_threshold: float = 0.1
    mask_threshold: float = 0.5
    keep_threshold: float = 0.05
    nms_kernel: Literal["gaussian", "linear"] = "gaussian"
    nms_sigma: float = 2.0
    max_instances: int = 100


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """MLAR (Eqs 14-26), for training targets and pseudo-masks alike.

    levels: which terms. feature_levels: which FPN levels make the semantic one (those that are not
    given are left out). use_global, use_local: the two steps. zeta_global: "auto" takes zeta² =
    zeta_scale · the median edge of the tree (zeta_scale_semantic on features, which are smooth when
    resized: most edges are near the median), a number zeta itself, in the guide's unit. zeta_local:
    of the image (in its unit, standard deviations of ImageNet). zeta_semantic: of unit-length
    features. iterations, blocks, mix: the local cascade (Eq. 25). window, balance: see
    sapnet/labelers/affinity/refine.py. warmup: the share of the steps before the loss sets in.
    polish: how often the image alone refines the pseudo-masks again, after both terms did.
    """

    enabled: bool = True
    levels: Literal["pixel", "semantic", "both"] = "both"
    feature_levels: tuple[int, ...] = (0, 1, 2)
    use_global: bool = True
    use_local: bool = True
    zeta_global: float | Literal["auto"] = "auto"
    zeta_scale: float = 0.7
    zeta_scale_semantic: float = 0.2
    zeta_local: float = 0.15
    zeta_semantic: float = 0.3
    iterations: int = 1
    blocks: int = 2
    mix: float = 0.5
    window: float | None = 0.1
    balance: float = 0.5
    warmup: float = 1 / 6
    loss_weight: float = 1.0
    polish: int = 1


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Network input: short side (one is drawn where several are given), long side at most, flip."""

    short_sides: tuple[int, ...] = (800,)
    max_long_side: int = 1333
    flip: bool = True
    max_proposals: int = 16


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """min_steps: a small data set is gone through more often than `epochs`, up to this many; who
    overrides `epochs` means just those, and it is 0 unless overridden too. precision: of products;
    "auto" is bfloat16 on a GPU that multiplies it, else float32. compile: on a GPU, the segmenter
    by torch.compile, which takes minutes before the first steps."""

    epochs: int = 12
    min_steps: int = 0
    batch_size: int = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    reference_batch: int = 32
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    drops: tuple[float, ...] = (8 / 12, 10 / 12)
    clip_norm: float = 35.0
    checkpoint_every: int = 200
    precision: Precision = "auto"
    compile: bool = False


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """Pseudo-masks: refined where it agrees with M_srm, else M_srm itself.

    blend: refine the mean of M_srm, of what its bag expects and of what SOLOv2 predicts, each
    weighed by how far it agrees with M_srm; off, SOLOv2's alone (the paper). consent: deliver the
    refined mask only where the rest of the bag agrees with it as much as with M_srm.
    """

    blend: bool = False
    consent: bool = False
    agreement: float = 0.5
    mask_threshold: float = 0.5
    stride: int = 4


@dataclass(frozen=True, slots=True)
class Config:
    method: Method = "sapnet++"
    preset: str = "paper_r50_1x"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    mil: MilConfig = field(default_factory=MilConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    solo: SoloConfig = field(default_factory=SoloConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paper_r50_1x() -> Config:
    """The paper's COCO setting: ResNet-50, 12 epochs, one scale. Meant for several GPUs."""
    return Config()


def paper_r101_3x() -> Config:
    """The paper's long schedule: ResNet-101, 36 epochs, short side 640 to 800."""
    return Config(
        preset="paper_r101_3x",
        backbone=BackboneConfig(name="resnet101"),
        data=DataConfig(short_sides=tuple(range(640, 801, 32))),
        train=TrainConfig(epochs=36, drops=(27 / 36, 33 / 36)),
    )


def cpu() -> Config:
    """A thousand pictures, two cores, an afternoon: MobileNetV2, small heads, small input."""
    return Config(
        preset="cpu",
        backbone=BackboneConfig(name="mobilenet_v2", fpn_channels=64),
        mil=MilConfig(
            fc_channels=256,
            roi_sampling=1,
            background_negatives=64,
            normalize_features=True,
            negative_loss="cross_entropy",
            completeness_weight=0.25,
            prior_medoid=8.0,
            prior_confidence=4.0,
            prior_overlap=8.0,
            instance_branch=None,
            part_negatives=0,
            box_mining=False,
            completeness=False,
        ),
        teacher=TeacherConfig(enabled=True),
        solo=SoloConfig(
            channels=96,
            stacked_convs=2,
            mask_channels=48,
            mask_feature_channels=48,
            scale_ranges=((1, 48), (24, 96), (48, 192), (96, 384), (192, 2048)),
        ),
        refine=RefineConfig(feature_levels=(0,)),
        data=DataConfig(short_sides=(384,), max_long_side=640),
        train=TrainConfig(
            epochs=12,
            min_steps=400,
            batch_size=4,
            optimizer="adamw",
            learning_rate=5e-4,
            reference_batch=4,
            weight_decay=0.01,
            warmup_steps=50,
            checkpoint_every=25,
        ),
        output=OutputConfig(stride=2, blend=True),
    )


def demo() -> Config:
    """The generated scenes of `make demo`: `cpu`, from random weights, in a few minutes. Three
    classes that differ: what a photograph's bags do not bear (SASD, part negatives) helps here."""
    base = cpu()
    return replace(
        base,
        preset="demo",
        mil=replace(base.mil, completeness=True, part_negatives=6),
        solo=replace(base.solo, num_grids=(24, 20, 16, 12, 8)),
        data=replace(base.data, short_sides=(192,), max_long_side=256),
        train=replace(base.train, epochs=24, learning_rate=1e-3),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "cpu": cpu,
    "demo": demo,
    "paper_r50_1x": paper_r50_1x,
    "paper_r101_3x": paper_r101_3x,
}


def resolve_config(
    method: str = "sapnet++",
    preset: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    proposals: str = "hierarchy",
) -> Config:
    """Join preset, method and overrides ({"train.epochs": 6}) into one checked `Config`.

    proposals: the kind of generator; presets with a teacher weigh its figures by it.

    Errors: InvalidConfig names the bad value, what it may be, and near matches.
    """
    if preset not in PRESETS:
        raise InvalidConfig(f"preset {preset!r} does not exist; it may be {in_words(PRESETS)}")
    if method not in METHODS:
        raise InvalidConfig(f"method {method!r} does not exist; it may be {in_words(METHODS)}")
    config = PRESETS[preset]()
    config = replace(config, method=cast(Method, method))
    changes = {**METHODS[method], **(overrides or {})}
    if config.teacher.enabled and proposals != "hierarchy":
        changes = {**FOREIGN, **changes}
    if "train.epochs" in changes:
        changes.setdefault("train.min_steps", 0)
    for name, value in changes.items():
        config = override(config, name, value)
    _check(config)
    return config


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """Read back what `Config.to_dict` wrote (through JSON, where tuples become lists).

    A setting that the writer's release did not know yet has its default.
    """
    config = Config(method=data["method"], preset=data["preset"])
    for name in override_names(config):
        stage, setting = name.split(".")
        if setting in data.get(stage, {}):
            config = override(config, name, data[stage][setting])
    return config


def _check(config: Config) -> None:
    positive = {
        "train.epochs": config.train.epochs,
        "train.batch_size": config.train.batch_size,
        "train.learning_rate": config.train.learning_rate,
        "train.checkpoint_every": config.train.checkpoint_every,
        "train.reference_batch": config.train.reference_batch,
        "data.max_proposals": config.data.max_proposals,
        "data.short_sides": min(config.data.short_sides, default=0),
        "data.max_long_side": config.data.max_long_side,
        "backbone.fpn_channels": config.backbone.fpn_channels,
        "mil.fc_channels": config.mil.fc_channels,
        "teacher.batch_size": config.teacher.batch_size,
        "teacher.channels": config.teacher.channels,
        "teacher.hidden": config.teacher.hidden,
        "teacher.cells": config.teacher.cells,
        "teacher.points_per_image": config.teacher.points_per_image,
        "solo.channels": config.solo.channels,
        "solo.mask_channels": config.solo.mask_channels,
        "solo.mask_feature_channels": config.solo.mask_feature_channels,
        "solo.num_grids": min(config.solo.num_grids, default=0),
        "output.stride": config.output.stride,
    }
    for name, value in positive.items():
        if value <= 0:
            raise InvalidConfig(f"{name} must be above 0, not {value}")
    for name in override_names(config):
        stage, setting = name.split(".")
        value = getattr(getattr(config, stage), setting)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and number < 0:
                raise InvalidConfig(f"{name} must not be below 0, not {number}")
    for stage in ("train", "teacher"):  # more is a slip of the finger, and would run for years
        for setting, most in (("epochs", 10_000), ("min_steps", 1_000_000), ("batch_size", 1_024)):
            if (value := getattr(getattr(config, stage), setting)) > most:
                raise InvalidConfig(f"{stage}.{setting} must be at most {most:,}, not {value:,}")
    if config.teacher.channels % 4:
        raise InvalidConfig(
            f"teacher.channels must be a multiple of 4, not {config.teacher.channels}"
        )
    if len(config.solo.num_grids) != 5 or len(config.solo.scale_ranges) != 5:
        raise InvalidConfig("solo.num_grids and solo.scale_ranges need 5 entries, one a level")
