"""Random changes of training images, drawn from a generator handed in."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sapnet.config.schema import DataConfig
from sapnet.data.samples import IMAGE_MEAN, IMAGE_STD, Sample

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """The changes of one image.

    Attributes:
        flip: mirror it left to right.
        scale: factor of its short side.
        color: factors of brightness, contrast and saturation; None leaves the colours.
    """

    flip: bool = False
    scale: float = 1.0
    color: tuple[float, float, float] | None = None


def draw_augmentation(config: DataConfig, generator: torch.Generator) -> Augmentation:
    """Draw what the settings allow; what is off draws no number."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    flip = config.flip and uniform(0, 1) < 0.5
    scale = uniform(config.min_scale, 1.0) if config.min_scale < 1 else 1.0
    color = None
    if strength := config.color_jitter:
        brightness, contrast, saturation = (uniform(1 - strength, 1 + strength) for _ in range(3))
        color = brightness, contrast, saturation
    return Augmentation(flip, scale, color)


def jitter_color(sample: Sample, factors: tuple[float, float, float]) -> Sample:
    """The sample in other colours.

    Brightness multiplies all values, saturation each pixel's distance from its grey, contrast its
    distance from the mean grey of the image; what leaves the range of colours is cut off.

    Args:
        sample: ImageNet-normalised, as `load_sample` makes it.
        factors: of brightness, contrast and saturation, 1 changes nothing.
    """
    brightness, contrast, saturation = factors
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    pixels = sample.image * std + mean
    grey = (pixels * torch.tensor(_GREY).view(3, 1, 1)).sum(0, keepdim=True)
    pixels = grey.lerp(pixels, saturation) if saturation != 1 else pixels
    pixels = (pixels - grey.mean()) * contrast + grey.mean()
    pixels = (pixels * brightness).clamp_(0, 1)
    image: Tensor = (pixels - mean) / std
    return replace(sample, image=image)
