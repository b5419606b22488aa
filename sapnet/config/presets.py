"""Named settings. `paper_*` are what the papers print; the others are ours."""

from collections.abc import Callable
from dataclasses import replace

from sapnet.config.schema import (
    BackboneConfig,
    Body,
    Config,
    DataConfig,
    MilConfig,
    OutputConfig,
    RefineConfig,
    SoloConfig,
    TeacherConfig,
    TrainConfig,
)


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
    """A thousand images, two cores, an afternoon: EfficientNet-Lite0, small heads, small input.

    The body's ImageNet weights are installed with the package; it may be another, see `bodies_of`.
    """
    return Config(
        preset="cpu",
        backbone=BackboneConfig(name="efficientnet_lite0", fpn_channels=64),
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
            hold_out=0.1,
        ),
        output=OutputConfig(stride=2, blend=True),
    )


def demo() -> Config:
    """The generated scenes of `make demo`: `cpu` at a smaller input, in a few minutes.

    Three classes that differ: what a photograph's bags do not bear (SASD, part negatives) helps
    here.
    """
    base = cpu()
    return replace(
        base,
        preset="demo",
        mil=replace(base.mil, completeness=True, part_negatives=6),
        solo=replace(base.solo, num_grids=(24, 20, 16, 12, 8)),
        data=replace(base.data, short_sides=(192,), max_long_side=256),
        train=replace(base.train, epochs=24, learning_rate=1e-3),
    )


LIGHT_HEAD = SoloConfig(
    channels=256,
    stacked_convs=2,
    mask_channels=128,
    scale_ranges=((1, 56), (28, 112), (56, 224), (112, 448), (224, 896)),
)
"""SOLOv2's light head, for inputs of 448 pixels."""
LIGHT_DATA = DataConfig(short_sides=(448,), max_long_side=768)
"""The size at which mmdetection tests its light SOLOv2."""


def light_r18() -> Config:
    """A light SOLOv2 on ResNet-18, as mmdetection publishes one; the rest is `cpu`'s."""
    return _light("light_r18", "resnet18")


def light_r34() -> Config:
    """A light SOLOv2 on ResNet-34."""
    return _light("light_r34", "resnet34")


def light_r50() -> Config:
    """A light SOLOv2 on ResNet-50."""
    return _light("light_r50", "resnet50")


def gpu() -> Config:
    """One consumer GPU of 8 GB or more: a light SOLOv2 on ResNet-50, in bfloat16 where it has it.

    The settings are `light_r50`'s. No GPU was at hand to measure others.
    """
    return _light("gpu", "resnet50")


def _light(preset: str, body: Body) -> Config:
    backbone = BackboneConfig(name=body)
    return replace(cpu(), preset=preset, backbone=backbone, solo=LIGHT_HEAD, data=LIGHT_DATA)


PRESETS: dict[str, Callable[[], Config]] = {
    "cpu": cpu,
    "demo": demo,
    "gpu": gpu,
    "light_r18": light_r18,
    "light_r34": light_r34,
    "light_r50": light_r50,
    "paper_r50_1x": paper_r50_1x,
    "paper_r101_3x": paper_r101_3x,
}


def bodies_of(preset: str) -> tuple[str, ...]:
    """The bodies that a preset's settings suit, its own first.

    Whose own comes with the package takes MobileNetV2 where weights of that, or a model on it, are
    given: the two are alike in size, and `cpu` was on MobileNetV2 once.
    """
    own = PRESETS[preset]().backbone.name
    return (own, "mobilenet_v2") if own == "efficientnet_lite0" else (own,)
