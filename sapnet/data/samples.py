"""Images and their bags as the network sees them: resized, flipped, padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import DataConfig
from sapnet.data.images import read_rgb
from sapnet.data.masks import decode
from sapnet.data.pixels import Ranges
from sapnet.data.resize import MASK_STRIDE, PAD_TO, input_size
from sapnet.types import Bag, ByteArray, ImageInfo, PointAnnotation, Rle

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
_LARGE = 1 << 23  # pixels


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image with its points, labels and bags. Rows follow `annotations`.

    Attributes:
        bags: the proposals of each annotation.
        labels: (N,) int64, 0..K-1.
        ranges: by which an image of more than 8 bits is read.
    """

    info: ImageInfo
    path: Path
    annotations: tuple[PointAnnotation, ...]
    bags: tuple[Bag, ...]
    labels: np.ndarray
    ranges: Ranges | None = None


def make_record(
    info: ImageInfo,
    path: Path,
    annotations: Sequence[PointAnnotation],
    bags: Sequence[Bag],
    label_of: Mapping[int, int],
    ranges: Ranges | None = None,
) -> ImageRecord:
    """Join an image, its points and their bags.

    Args:
        label_of: category_id -> label.
    """
    labels = np.array([label_of[a.category_id] for a in annotations], dtype=np.int64)
    return ImageRecord(info, path, tuple(annotations), tuple(bags), labels, ranges)


@dataclass(frozen=True)
class Sample:
    """One image as the network sees it, before padding.

    Attributes:
        image: (3, h, w) float32, ImageNet-normalised.
        scale: (2,) x and y factor from the image's own pixels to the input's.
        flipped: mirrored left to right.
    """

    record: ImageRecord
    image: Tensor
    scale: tuple[float, float]
    flipped: bool

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the input, before padding."""
        return self.image.shape[1], self.image.shape[2]

    def boxes(self, bag: Bag) -> np.ndarray:
        """The bag's boxes in pixels of the input, (M, 4) float32 xyxy."""
        return self.placed(bag.boxes)

    def placed(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (M, 4) xyxy of the image in pixels of the input, float32."""
        boxes = boxes * np.array([*self.scale, *self.scale], dtype=np.float32)
        if self.flipped:
            boxes = boxes.copy()
            boxes[:, [0, 2]] = self.size[1] - boxes[:, [2, 0]]
        return boxes.astype(np.float32)

    def mask(self, rle: Rle, stride: int) -> Tensor:
        """A mask of the image on the input's grid at `stride`.

        A cell is in where at least half of it is; a mask too small for any keeps the cell where it
        has most, so that no object is lost.

        Returns:
            (h/stride, w/stride) bool, the sizes rounded up.
        """
        full = torch.from_numpy(decode(rle)).float()
        h, w = self.size
        grid = (-(-h // stride), -(-w // stride))
        votes = F.interpolate(full[None, None], size=grid, mode="area")[0, 0]
        shrunk = votes >= min(0.5, float(votes.max()))
        return shrunk.flip(1) if self.flipped else shrunk


def to_tensor(image: ByteArray, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 RGB to (3, h, w) float32, resized with antialiasing and normalised."""
    bands = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    # As floats a large image is four times as large: then one band at a time.
    parts = [bands] if bands[0, 0].numel() <= _LARGE else list(bands.split(1, dim=1))
    resized = [
        F.interpolate(part.float(), size=size, mode="bilinear", antialias=True) for part in parts
    ]
    pixels = torch.cat(resized, dim=1)[0] / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    return (pixels - mean) / std


def load_sample(
    record: ImageRecord, config: DataConfig, short_side: int | None = None, flip: bool = False
) -> Sample:
    """Read and resize one image.

    Args:
        short_side: the largest of the config unless given.
    """
    image = read_rgb(record.path, ranges=record.ranges)
    h, w = image.shape[:2]
    size = input_size((h, w), short_side or max(config.short_sides), config.max_long_side)
    tensor = to_tensor(image, size)
    return Sample(
        record=record,
        image=tensor.flip(2) if flip else tensor,
        scale=(size[1] / w, size[0] / h),
        flipped=flip,
    )


def largest(samples: Sequence[Sample]) -> tuple[int, int]:
    """(h, w) that all of them fit in; (0, 0) for none."""
    sizes = [s.size for s in samples]
    return max((h for h, _ in sizes), default=0), max((w for _, w in sizes), default=0)


def pad(samples: Sequence[Sample], frame: tuple[int, int] | None = None) -> Tensor:
    """(B, 3, H, W): zeros to the right and below, to a multiple of 64.

    Args:
        frame: (h, w) to fill at least, that of the whole batch where `samples` are a part of it.
    """
    h, w = frame or largest(samples)
    batch = torch.zeros(len(samples), 3, -(-h // PAD_TO) * PAD_TO, -(-w // PAD_TO) * PAD_TO)
    for row, sample in zip(batch, samples, strict=True):
        row[:, : sample.size[0], : sample.size[1]] = sample.image
    return batch


def quarter_size(images: Tensor) -> tuple[int, int]:
    """(h, w) at stride 4 of a padded batch (B, 3, H, W)."""
    return images.shape[2] // MASK_STRIDE, images.shape[3] // MASK_STRIDE


def mask_grid(sample: Sample, picked: np.ndarray, shape: tuple[int, int], stride: int) -> Tensor:
    """One mask of each bag of an image, on the batch's padded grid: (N, *shape) bool.

    Args:
        picked: (N,) index into each bag.
        shape: (h, w) of the batch's grid at `stride`.
    """
    masks = torch.zeros(len(picked), *shape, dtype=torch.bool)
    for row, bag, index in zip(masks, sample.record.bags, picked, strict=True):
        mask = sample.mask(bag.masks[int(index)], stride)
        row[: mask.shape[0], : mask.shape[1]] = mask
    return masks
