"""The teacher's data: frozen features of an image, and a window around each point's bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.config.schema import Config
from sapnet.data.images import read_rgb
from sapnet.data.masks import decode_all
from sapnet.data.samples import ImageRecord, load_sample, pad
from sapnet.labelers.sapnet.bag_features import bag_features
from sapnet.types import Bag, ByteArray

CACHE_BYTES = 2 << 30  # dataset past this are made anew each time they are asked for
_FINE = 2  # samples a cell and axis
_MARGIN = 0.1  # of the window's side, and the pixels below, on each side of the bag
_MARGIN_PIXELS = 4.0


@dataclass(frozen=True)
class TeacherExample:
    """One image, N points, windows of G×G cells.

    Attributes:
        features: (C, h, w) float16 a level of the body, cut to the image's own part; strides 4, 8,
            16, 32.
        points: (N, 2) float32 xy, pixels of the network's input.
        windows: (N, 4) float32 xyxy, pixels of the network's input.
        colours: (N, 3, G, G) float16, of mean 0 over the image.
        masks: a (M, G, G) uint8 a bag, the share of the cell, 255 is all of it.
        allowed: (M,) bool a bag, what may be picked.
        prior: (M,) float32 a bag, log weights from the bag alone.
    """

    features: tuple[Tensor, ...]
    points: Tensor
    windows: Tensor
    colours: Tensor
    masks: tuple[Tensor, ...]
    allowed: tuple[Tensor, ...]
    prior: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.points)

    @property
    def nbytes(self) -> int:
        """Bytes of its large tensors."""
        tensors = (*self.features, *self.masks, self.colours)
        return sum(t.numel() * t.element_size() for t in tensors)


class TeacherDataset(Sequence[TeacherExample]):
    """A example an image, made when first asked for and kept while there is room."""

    def __init__(self, body: nn.Module, records: Sequence[ImageRecord], config: Config) -> None:
        """body: images (B, 3, H, W) -> features at strides 4, 8, 16, 32; left as it is."""
        self._body, self._records, self._config = body, records, config
        self._kept: dict[int, TeacherExample] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        example = self._kept.get(index)
        if example is None:
            example = make_example(self._body, self._records[index], self._config)
            if example.nbytes <= self._room:
                self._room -= example.nbytes
                self._kept[index] = example
        return example


@torch.no_grad()
def make_example(body: nn.Module, record: ImageRecord, config: Config) -> TeacherExample:
    """Read one image and cut its windows."""
    settings = config.teacher
    sample = load_sample(record, config.data)
    device = next(body.parameters()).device
    h, w = sample.size
    levels = body(pad([sample]).to(device))
    features = tuple(
        level[0, :, : -(-h // stride), : -(-w // stride)].half()
        for level, stride in zip(levels, (4, 8, 16, 32), strict=True)
    )
    scale = torch.tensor([*sample.scale, *sample.scale], dtype=torch.float32)
    xy = np.array([(a.x, a.y) for a in record.annotations], dtype=np.float32).reshape(-1, 2)
    pixels = normal_colours(read_rgb(record.path, ranges=record.ranges))
    frames, colours, masks, allowed, prior = [], [], [], [], []
    of_bags = bag_features(record, config.mil)
    features_of_bag = of_bags.contains_other_point, of_bags.medoid, of_bags.box_fit
    for bag, point, excluded, medoid, fit in zip(record.bags, xy, *features_of_bag, strict=True):
        clean = ~excluded if not excluded.all() else np.ones(len(bag), dtype=bool)
        frame = frame_of(bag, clean, point)
        rows, columns, inside = cells_of(frame, record.info.size, settings.cells)
        decoded = decode_all(bag.masks)[rows[:, None], columns]
        stacked = torch.from_numpy(decoded * inside[..., None]).permute(2, 0, 1).float()
        frames.append(frame)
        shares = keep_specks(F.avg_pool2d(stacked, _FINE), bag, frame)
        masks.append((shares * 255).round().byte().to(device))
        cut = torch.from_numpy(pixels[rows[:, None], columns]).permute(2, 0, 1)
        colours.append(F.avg_pool2d(cut, _FINE).half())
        allowed.append(torch.from_numpy(clean).to(device))
        confidence = np.log(np.maximum(bag.confidence, 1e-4))
        agreement = np.log(np.maximum(medoid, 1e-4))
        weight = config.mil.prior_confidence * confidence + config.mil.prior_medoid * agreement
        weight = weight + fit
        prior.append(torch.from_numpy(weight.astype(np.float32)).to(device))
    side = settings.cells
    windows = torch.from_numpy(np.array(frames, dtype=np.float32).reshape(-1, 4))
    stacked_colours = torch.stack(colours) if colours else torch.zeros(0, 3, side, side).half()
    return TeacherExample(
        features=features,
        points=(torch.from_numpy(xy) * scale[:2]).to(device),
        windows=(windows * scale).to(device),
        colours=stacked_colours.to(device),
        masks=tuple(masks),
        allowed=tuple(allowed),
        prior=tuple(prior),
    )


def normal_colours(image: ByteArray) -> np.ndarray:
    """(H, W, 3) uint8 to float32 of mean 0 by channel and deviation 1 over all.

    So dim micrographs and bright photographs look alike.
    """
    pixels = image.astype(np.float32) / 255
    pixels -= pixels.mean(axis=(0, 1))
    return pixels / (pixels.std() + 0.02)


def frame_of(bag: Bag, clean: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The window of a bag, (4,) float32 xyxy in pixels of the image.

    It lies around all that may be picked (`clean`, (M,) bool) and the point, with a margin.
    """
    low = np.minimum(bag.boxes[clean, :2].min(axis=0), point)
    high = np.maximum(bag.boxes[clean, 2:].max(axis=0), point)
    margin = _MARGIN * (high - low) + _MARGIN_PIXELS
    return np.concatenate([low - margin, high + margin]).astype(np.float32)


def cells_of(
    frame: np.ndarray, size: tuple[int, int], cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels that stand for a window's cells, several a cell.

    Returns:
        Rows (cells · 2,) and columns (cells · 2,) int64, clipped to the image, and where they are
        inside of it, (cells · 2, cells · 2) uint8.
    """
    steps = (np.arange(cells * _FINE) + 0.5) / (cells * _FINE)
    x = np.floor(frame[0] + steps * (frame[2] - frame[0])).astype(np.int64)
    y = np.floor(frame[1] + steps * (frame[3] - frame[1])).astype(np.int64)
    h, w = size
    inside = ((y >= 0) & (y < h))[:, None] & ((x >= 0) & (x < w))
    return y.clip(0, h - 1), x.clip(0, w - 1), inside.astype(np.uint8)


def keep_specks(shares: Tensor, bag: Bag, frame: np.ndarray) -> Tensor:
    """Give a mask that no sample met the cell at its box's centre, in (M, G, G) shares.

    With no cell at all its contrast would be 0, the best there is.
    """
    side = shares.shape[-1]
    for m in (shares.sum((1, 2)) == 0).nonzero()[:, 0].tolist():
        centre = (bag.boxes[m, :2] + bag.boxes[m, 2:]) / 2
        column, row = (centre - frame[:2]) / (frame[2:] - frame[:2]) * side
        shares[m, min(max(int(row), 0), side - 1), min(max(int(column), 0), side - 1)] = 1
    return shares
