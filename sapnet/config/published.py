"""Published weights that a training can start from, by name. Imports no torch.

Addresses and figures are those of mmdetection's `configs/solov2/README.md` and of torchvision. Both
name a file by the first digits of its sha256, and publish no more of it.
"""

from dataclasses import dataclass

_OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0/solov2"
_TORCHVISION = "https://download.pytorch.org/models"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file that somebody has published.

    Attributes:
        url: its address; its name ends with the first digits of its sha256.
        about: what it is, with its mask AP on COCO val2017 as published.
        licence: of the file.
        is_segmenter: whether it is a whole segmenter; else a backbone.
    """

    url: str
    about: str
    licence: str
    is_segmenter: bool

    @property
    def filename(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """The first eight hexadecimal digits of the file's sha256."""
        return self.filename.rpartition("-")[2].removesuffix(".pth")


def _solov2(folder: str, stamp: str, about: str) -> PublishedWeights:
    url = f"{_OPENMMLAB}/{folder}/{folder}_{stamp}.pth"
    return PublishedWeights(url, f"SOLOv2 on COCO, {about}", "Apache-2.0", is_segmenter=True)


def _backbone(file: str) -> PublishedWeights:
    about = "backbone on ImageNet, fetched by a training by itself where there is a network"
    return PublishedWeights(f"{_TORCHVISION}/{file}.pth", about, "BSD-3-Clause", is_segmenter=False)


PUBLISHED = {
    "solov2-light-r18": _solov2(
        "solov2_light_r18_fpn_3x_coco", "20220511_083717-75fa355b", "light, ResNet-18, AP 29.7"
    ),
    "solov2-light-r34": _solov2(
        "solov2_light_r34_fpn_3x_coco", "20220511_091839-e51659d3", "light, ResNet-34, AP 31.9"
    ),
    "solov2-light-r50": _solov2(
        "solov2_light_r50_fpn_3x_coco", "20220512_165256-c93a6074", "light, ResNet-50, AP 33.7"
    ),
    "solov2-r50-1x": _solov2(
        "solov2_r50_fpn_1x_coco", "20220512_125858-a357fa23", "ResNet-50, 1x, AP 34.8"
    ),
    "solov2-r50-3x": _solov2(
        "solov2_r50_fpn_3x_coco", "20220512_125856-fed092d4", "ResNet-50, 3x, AP 37.5"
    ),
    "solov2-r101-3x": _solov2(
        "solov2_r101_fpn_3x_coco", "20220511_095119-c559a076", "ResNet-101, 3x, AP 39.1"
    ),
    "resnet18": _backbone("resnet18-f37072fd"),
    "resnet34": _backbone("resnet34-b627a593"),
    "resnet50": _backbone("resnet50-0676ba61"),
    "resnet101": _backbone("resnet101-63fe2227"),
    "mobilenet_v2": _backbone("mobilenet_v2-b0353104"),
}
PRESET_WEIGHTS = {
    "gpu": "resnet50",
    "light_r18": "solov2-light-r18",
    "light_r34": "solov2-light-r34",
    "light_r50": "solov2-light-r50",
    "paper_r50_1x": "resnet50",
    "paper_r101_3x": "resnet101",
}
"""The weights that each preset is meant to start from; those of `cpu` and `demo` are installed."""


def missing_segmenter(preset: str) -> str | None:
    """Say which segmenter a preset is meant to go on from, for a training that has none.

    None where the preset is meant to start from a backbone, or from nothing.
    """
    name = PRESET_WEIGHTS.get(preset, "")
    if name not in PUBLISHED or not PUBLISHED[name].is_segmenter:
        return None
    return (
        f"{preset} is meant to go on from {name} ({PUBLISHED[name].about}), and starts from its "
        f"backbone alone: `sapnet-service weights fetch {name}`, import it, and name it as "
        "from_model"
    )
