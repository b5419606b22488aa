"""Every setting of a run: one frozen dataclass per stage.

Imports no torch: the API checks a request before it accepts the job. The defaults are the papers'
(`paper_r50_1x`); `sapnet.config.presets` holds the other settings that are named.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sapnet.types import Method, Precision

Body = Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"]


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Backbone and feature pyramid."""

    name: Body = "resnet50"
    fpn_channels: int = 256
    frozen_stages: int = 1
    fpn_norm: Literal["none", "batch", "group"] = "none"
    p6: Literal["pool", "conv"] = "pool"


@dataclass(frozen=True, slots=True)
class MilConfig:
    """Proposal selection: PSM, PDG, PNPG, SRM, BMS, SASD (Eqs 1-13, Algorithms 1 and 2).

    Attributes:
        instance_branch: null takes it where there are two classes or more.
        quality_weight: an object counts in the segmenter's losses by the expected IoU of its mask,
            to this power; 0 counts all alike.
        prior_tight: exponent of the share of the object's box that the box of a mask covers.
        prior_inside: exponent of the share of a mask that lies in the object's box.
    """

    # what runs: the rows of the ladder (Table 6)
    rule: Literal["learned", "confidence", "consensus", "box"] = "learned"
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
    # what the segmenter learns
    quality_weight: float = 0.0
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
    # what an object's own box knows, where it has one
    prior_tight: float = 4.0
    prior_inside: float = 2.0
    # what the teacher says, where there is one (sapnet/teacher)
    prior_contrast: float = 0.0
    prior_overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A small segmenter on frozen features that learns from all bags before training begins.

    Its figures for each proposal are priors of the selection.

    Attributes:
        cells: side of the window that it sees.
        points_per_image: drawn per step.
        held, free: a cell counts as object where at least this share of a bag's masks holds it, as
            ground where at most this share does.
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

    Attributes:
        levels: which terms.
        feature_levels: which FPN levels make the semantic one (those that are not given are left
            out).
        use_global, use_local: the two steps.
        zeta_global: "auto" takes zeta² = zeta_scale · the median edge of the tree
            (zeta_scale_semantic on features, which are smooth when resized: most edges are near the
            median), a number zeta itself, in the guide's unit.
        zeta_local: of the image (in its unit, standard deviations of ImageNet).
        zeta_semantic: of unit-length features.
        iterations, blocks, mix: the local cascade (Eq. 25).
        window, balance: see sapnet/labelers/affinity/refine.py.
        warmup: the share of the steps before the loss sets in.
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
    """Network input: short side (one is drawn where several are given), long side at most, flip.

    Attributes:
        min_scale: each training image is shrunk by a factor drawn from [min_scale, 1].
        color_jitter: brightness, contrast and saturation of each training image are multiplied by
            factors drawn from [1 - color_jitter, 1 + color_jitter].
    """

    short_sides: tuple[int, ...] = (800,)
    max_long_side: int = 1333
    flip: bool = True
    min_scale: float = 1.0
    color_jitter: float = 0.0
    max_proposals: int = 16


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Schedule, optimizer, precision.

    Attributes:
        min_steps: a small dataset is gone through more often than `epochs`, up to this many; who
            overrides `epochs` means just those, and it is 0 unless overridden too.
        average: the share of the steps over which weights are averaged, exponentially, for what is
            delivered: masks, figures and model. 0 takes those of the last step.
        hold_out: the share of the images that the segmenter is not trained on, but validated on,
            `hold_out_least` of them at least; of fewer than `hold_out_from` images none is held
            out (fifty: fewer would lose more than a tenth), nor with 0.
        validations: how often at most, at ends of epochs; the best weights are delivered.
        patience: the share of the steps after which a training ends in which no validation was
            better; 0 goes on to the end.
        precision: of products; "auto" is bfloat16 on a GPU that multiplies it, else float32.
        compile: on a GPU, the segmenter by torch.compile, which takes minutes before the first
            steps.
    """

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
    average: float = 0.0
    hold_out: float = 0.0
    hold_out_least: int = 5
    hold_out_from: int = 50
    validations: int = 20
    patience: float = 0.0
    precision: Precision = "auto"
    compile: bool = False


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """Pseudo-masks: refined where it agrees with M_srm, else M_srm itself.

    Attributes:
        blend: refine the mean of M_srm, of what its bag expects and of what SOLOv2 predicts, each
            weighed by how far it agrees with M_srm; off, SOLOv2's alone (the paper).
        consent: deliver the refined mask only where the rest of the bag agrees with it as much as
            with M_srm.
    """

    blend: bool = False
    consent: bool = False
    agreement: float = 0.5
    mask_threshold: float = 0.5
    stride: int = 4


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run, a stage each."""

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
        """The configuration as JSON, but for tuples; `config_from_dict` reads it."""
        return asdict(self)
