"""What the ladder stands on: a dataset's folder, its bags, and its images' frozen features."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from simulated.generator import VARIANTS, make_simulated
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import Config
from sapnet.data.annotations.coco import load_points
from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.images import read_rgb
from sapnet.data.samples import PAD_TO, ImageRecord, Sample, input_size, to_tensor
from sapnet.proposals import KINDS as GENERATORS
from sapnet.proposals import build_generator
from sapnet.proposals.cached import populate_cache
from sapnet.segmenters.backbones import build_backbone
from sapnet.types import Bag, ByteArray, ImageInfo, PointSet

SIMULATED = {f"simulated-{variant}".replace("-balanced", ""): variant for variant in VARIANTS}
KINDS = ("simulated", *GENERATORS)


@dataclass(frozen=True)
class DataSet:
    """A folder with images/, points.json, instances.json (COCO), and proposals.json for `given`."""

    folder: Path
    points: PointSet
    truth: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "DataSet":
        return cls(
            folder, load_points(folder / "points.json"), read_truth(folder / "instances.json")
        )

    @property
    def paths(self) -> dict[int, Path]:
        return {i.id: self.folder / "images" / i.file_name for i in self.points.images}

    def pixels(self, info: ImageInfo) -> ByteArray:
        return read_rgb(self.folder / "images" / info.file_name)

    def bags(
        self, proposals: str, seed: int, store: Path, sam: Mapping[str, Any]
    ) -> Iterator[tuple[int, list[Bag]]]:
        """Image id and bags of each image; `seed` draws the simulated ones, the others are made
        once and kept in `store`. sam: keywords of the generator of that name."""
        if proposals in SIMULATED:
            variant = SIMULATED[proposals]
            yield from make_simulated(self.points, self.truth, self.pixels, seed, variant).items()
            return
        settings: dict[str, Any] = {"kind": proposals}
        if proposals == "given":
            settings["document"] = str(self.folder / "proposals.json")
        elif proposals == "sam":
            settings |= sam
        generator = build_generator(settings, self.points)
        yield from populate_cache(store, generator, self.points, self.paths, 16)


def expanded(proposals: Sequence[str]) -> list[str]:
    """`simulated` stands for each of its variants. ValueError names what is none of the kinds."""
    for name in proposals:
        if name not in (*KINDS, *SIMULATED):
            raise ValueError(f"proposals {name!r} are none of {', '.join(KINDS)}")
    return list(
        dict.fromkeys(
            one
            for name in proposals
            for one in (list(SIMULATED) if name == "simulated" else [name])
        )
    )


@dataclass(frozen=True)
class Frozen:
    """One image through the frozen body: image (3, h, w) and levels (C, ., .) at strides 4, 8,
    16, 32 of the padded input, all float16. scale: of x and y, from the image to the input."""

    image: Tensor
    levels: list[Tensor]
    scale: tuple[float, float]

    def sample(self, record: ImageRecord) -> Sample:
        return Sample(record, self.image, self.scale, False)


@torch.no_grad()
def freeze(data: DataSet, config: Config, weights: Path | None, target: Path) -> str:
    """Write `data`'s features to a file. Returns where the body's weights come from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are told in the tables
        backbone, origin = build_backbone(
            config.backbone, weights, generator=torch.Generator().manual_seed(0)
        )
    kept = []
    for info in data.points.images:
        pixels = data.pixels(info)
        h, w = input_size(info.size, max(config.data.short_sides), config.data.max_long_side)
        image = to_tensor(pixels, (h, w))
        scale = (w / info.width, h / info.height)
        padded = F.pad(image, (0, -w % PAD_TO, 0, -h % PAD_TO))
        levels = [level[0].half() for level in backbone.body(padded[None])]
        kept.append({"image": image.half(), "levels": levels, "scale": scale})
    torch.save(kept, target)
    return f"{origin.kind}: {origin.detail}"


def thaw(path: Path) -> list[Frozen]:
    """Read what `freeze` wrote."""
    kept = torch.load(path, weights_only=True, mmap=True)
    return [Frozen(k["image"], k["levels"], tuple(k["scale"])) for k in kept]
