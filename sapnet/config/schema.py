"""Every setting of a run: one frozen dataclass per stage. Every field has its meaning there.

Imports no torch: the API checks a request before it accepts the job. The defaults are the papers'
(`paper_r50_1x`); `sapnet.config.presets` holds the other settings that are named.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sapnet.config.labeler_schema import (
    MilConfig,
    P2SegConfig,
    RefineConfig,
    SimConfig,
    TeacherConfig,
)
from sapnet.types import Method, Precision

Body = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_lite0"
]


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Backbone and feature pyramid.

    Attributes:
        name: the body.
        fpn_channels: of each level of the pyramid.
        frozen_stages: how many of the body's first stages are not trained.
        fpn_norm: the norm behind each convolution of the pyramid.
        p6: how the coarsest level is made.
    """

    name: Body = "resnet50"
    fpn_channels: int = 256
    frozen_stages: int = 1
    fpn_norm: Literal["none", "batch", "group"] = "none"
    p6: Literal["pool", "conv"] = "pool"


@dataclass(frozen=True, slots=True)
class SoloConfig:
    """SOLOv2: grids, scale ranges, widths, loss weights, Matrix NMS.

    Attributes:
        num_grids: cells a side, one entry a level.
        scale_ranges: which objects a level learns: the square root of their area, pixels of the
            input, from and to.
        channels: of the head's convolutions.
        stacked_convs: how many of them.
        mask_channels: of the convolutions of the mask branch.
        mask_feature_channels: of the features that kernels are applied to.
        center_region: share of an object's box, about its centre of mass, whose cells learn it.
        dice_weight: of the mask loss beside the class loss.
        focal_gamma, focal_alpha: of the class loss.
        nms_pre: cells that go into Matrix NMS.
        score_threshold: cells below it are passed over.
        mask_threshold: probability from which a pixel is of the mask.
        keep_threshold: confidence below which a result of Matrix NMS is dropped.
        nms_kernel: its decay.
        nms_sigma: of the gaussian one.
        max_instances: of an image.
    """

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
class DataConfig:
    """Network input: short side (one is drawn where several are given), long side at most, flip.

    Attributes:
        short_sides: pixels; both sides are resized alike.
        max_long_side: pixels.
        flip: half of the training images are mirrored.
        max_proposals: of a bag, at most.
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
        epochs: over the training images.
        batch_size: images a step, over all processes.
        optimizer: of all weights.
        learning_rate: for `reference_batch` images a step; in proportion for others.
        reference_batch: see `learning_rate`.
        momentum: of sgd.
        weight_decay: of weights; with adamw not of norms and biases.
        warmup_steps: in which the rate rises to its value; a quarter of all steps at most.
        drops: shares of the steps at which the rate is divided by ten.
        clip_norm: of the gradients.
        checkpoint_every: steps; what is lost at most where a process is killed.
        min_steps: a small dataset is gone through more often than `epochs`, up to this many; who
            overrides `epochs` means just those, and it is 0 unless overridden too.
        average: the share of the steps over which weights are averaged, exponentially, for what is
            delivered: masks, figures and model. 0 takes those of the last step.
        hold_out: the share of the images that the segmenter is not trained on, but validated on;
            0 holds none out.
        hold_out_least: images that are held out at least.
        hold_out_from: of fewer images none is held out (fifty: fewer would lose more than a tenth).
        validations: how often at most, at ends of epochs; the best weights are delivered.
        patience: the share of the steps after which a training ends in which no validation was
            better; 0 goes on to the end.
        precision: of products; "auto" is bfloat16 on a GPU that multiplies it, else float32.
        compile: on a GPU, the segmenter by torch.compile, which takes minutes before the first
            steps.
        empty_images: whether images without annotations are learned as background; if not, they
            are taken as not annotated yet, and not trained on.
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
    empty_images: bool = False


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """Pseudo-masks: refined where it agrees with M_srm, else M_srm itself.

    Attributes:
        agreement: IoU of the refined mask with M_srm from which it is delivered.
        mask_threshold: probability from which a pixel is of the mask.
        stride: pixels of the input a cell of the grid on which masks are refined.
        blend: refine the mean of M_srm, of what its bag expects and of what SOLOv2 predicts, each
            weighed by how far it agrees with M_srm; off, SOLOv2's alone (the paper).
        consent: deliver the refined mask only where the rest of the bag agrees with it as much as
            with M_srm.
        drawn_agreement: deliver the refined mask only where what the segmenter draws agrees with
            M_srm so much (soft IoU). 0 is off.
        segmenter_vote: how far what the trained segmenter draws has a say in which mask of a bag is
            M_srm (`selection.with_vote`); it has none for an object where no mask of the bag is
            like what it draws. 0 is off.
    """

    blend: bool = False
    consent: bool = False
    agreement: float = 0.5
    drawn_agreement: float = 0.0
    mask_threshold: float = 0.5
    stride: int = 4
    segmenter_vote: float = 0.0


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run, a stage each."""

    method: Method = "sapnet++"
    preset: str = "paper_r50_1x"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    mil: MilConfig = field(default_factory=MilConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    p2seg: P2SegConfig = field(default_factory=P2SegConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    solo: SoloConfig = field(default_factory=SoloConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON, but for tuples; `config_from_dict` reads it."""
        return asdict(self)
