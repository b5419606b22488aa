"""Images and their bags as training batches: resized, flipped, padded, in a seeded order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import DataConfig, MilConfig
from sapnet.data.images import read_rgb
from sapnet.data.masks import decode
from sapnet.data.pixels import Ranges
from sapnet.data.resize import PAD_TO, input_size
from sapnet.labelers.rules import foreign_points, rivals_of
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.point_distance import distance_score, foreign_distance, mean_spacing
from sapnet.types import Bag, ByteArray, ImageInfo, Judgement, PointAnnotation, Rle

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
_LARGE = 1 << 23  # pixels


@dataclass(frozen=True)
class ImageRecord:
    """One image with what training knows of it. Rows follow `annotations`.

    labels: (N,) int64. distance, foreign, medoid, size_rank: a (M,) array a bag, see `Bags`.
    judgements: the teacher's, one a bag; none where it has not been asked.
    """

    info: ImageInfo
    path: Path
    annotations: tuple[PointAnnotation, ...]
    bags: tuple[Bag, ...]
    labels: np.ndarray
    distance: tuple[np.ndarray, ...]
    foreign: tuple[np.ndarray, ...]
    medoid: tuple[np.ndarray, ...]
    size_rank: tuple[np.ndarray, ...]
    judgements: tuple[Judgement, ...] = ()
    ranges: Ranges | None = None


def make_record(
    info: ImageInfo,
    path: Path,
    annotations: Sequence[PointAnnotation],
    bags: Sequence[Bag],
    label_of: Mapping[int, int],
    config: MilConfig,
    judgements: Sequence[Judgement] = (),
    ranges: Ranges | None = None,
) -> ImageRecord:
    """Join an image, its points and their bags; what the bags alone tell is computed here, once."""
    points = np.array([(a.x, a.y) for a in annotations], dtype=np.float64).reshape(-1, 2)
    spacing = mean_spacing(points)
    distance, foreign, medoid = [], [], []
    for annotation, bag, point in zip(annotations, bags, points, strict=True):
        rivals = rivals_of(annotation, annotations)
        xy = np.array([(r.x, r.y) for r in rivals], dtype=np.float64).reshape(-1, 2)
        swallowed, holds = foreign_points(bag, annotation, annotations)
        weight = foreign_distance(point, xy, holds, spacing)
        distance.append(distance_score(weight, config.distance_exponent))
        foreign.append(swallowed)
        overlaps = bag.overlaps.astype(np.float64)  # so that the sum knows no order
        others = overlaps.sum(axis=1) - np.diag(overlaps)
        medoid.append((others / max(len(bag) - 1, 1)).astype(np.float32))
    labels = np.array([label_of[a.category_id] for a in annotations], dtype=np.int64)
    return ImageRecord(
        info=info,
        path=path,
        annotations=tuple(annotations),
        bags=tuple(bags),
        labels=labels,
        distance=tuple(distance),
        foreign=tuple(foreign),
        medoid=tuple(medoid),
        size_rank=tuple(size_rank(bag) for bag in bags),
        judgements=tuple(judgements),
        ranges=ranges,
    )


def size_rank(bag: Bag) -> np.ndarray:
    """The place of each mask by falling area, (M,) int64; masks of one area by their own text."""
    areas = coco_mask.area(list(bag.masks))
    order = sorted(range(len(bag)), key=lambda m: (-int(areas[m]), bag.masks[m]["counts"]))
    return np.argsort(order)


@dataclass(frozen=True)
class Sample:
    """One image as the network sees it, before padding.

    image: (3, h, w) float32, ImageNet-normalised. scale: (2,) x and y factor from the image's own
    pixels to the input's. flipped: mirrored left to right.
    """

    record: ImageRecord
    image: Tensor
    scale: tuple[float, float]
    flipped: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]

    def boxes(self, bag: Bag) -> np.ndarray:
        """The bag's boxes in pixels of the input, (M, 4) float32 xyxy."""
        boxes = bag.boxes * np.array([*self.scale, *self.scale], dtype=np.float32)
        if self.flipped:
            boxes = boxes.copy()
            boxes[:, [0, 2]] = self.size[1] - boxes[:, [2, 0]]
        return boxes.astype(np.float32)

    def mask(self, rle: Rle, stride: int) -> Tensor:
        """A mask of the image on the input's grid at `stride`, (h/stride, w/stride) bool, the
        sizes rounded up. A cell is in where at least half of it is; a mask too small for any keeps
        the cell where it has most, so that no object is lost."""
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
    """Read and resize one image. short_side: the largest of the config unless given."""
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

    frame: (h, w) to fill at least, that of the whole batch where `samples` are a part of it.
    """
    h, w = frame or largest(samples)
    batch = torch.zeros(len(samples), 3, -(-h // PAD_TO) * PAD_TO, -(-w // PAD_TO) * PAD_TO)
    for row, sample in zip(batch, samples, strict=True):
        row[:, : sample.size[0], : sample.size[1]] = sample.image
    return batch


def collate(samples: Sequence[Sample]) -> Bags:
    """The bags of a batch in the input's pixels."""
    rows = [(i, s, n) for i, s in enumerate(samples) for n in range(len(s.record.bags))]
    longest = max((len(s.record.bags[n]) for _, s, n in rows), default=1)
    shape = (len(rows), longest)
    boxes = np.zeros((*shape, 4), dtype=np.float32)
    valid, foreign = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    distance = np.ones(shape, dtype=np.float32)
    medoid, confidence = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    contrast, overlap = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
    ranks = np.zeros(shape, dtype=np.int64)
    for row, (_, sample, n) in enumerate(rows):
        bag = sample.record.bags[n]
        used = slice(0, len(bag))
        boxes[row, used] = sample.boxes(bag)
        valid[row, used] = True
        distance[row, used] = sample.record.distance[n]
        foreign[row, used] = sample.record.foreign[n]
        medoid[row, used] = sample.record.medoid[n]
        ranks[row, used] = sample.record.size_rank[n]
        confidence[row, used] = bag.confidence
        if sample.record.judgements:
            contrast[row, used] = sample.record.judgements[n].contrast
            overlap[row, used] = sample.record.judgements[n].overlap
    labels = [sample.record.labels[n] for _, sample, n in rows]
    return Bags(
        boxes=torch.from_numpy(boxes),
        valid=torch.from_numpy(valid),
        labels=torch.tensor(labels, dtype=torch.int64),
        image=torch.tensor([i for i, _, _ in rows], dtype=torch.int64),
        distance=torch.from_numpy(distance),
        foreign=torch.from_numpy(foreign),
        medoid=torch.from_numpy(medoid),
        confidence=torch.from_numpy(confidence),
        contrast=torch.from_numpy(contrast),
        overlap=torch.from_numpy(overlap),
        size_rank=torch.from_numpy(ranks),
    )


class Sampler:
    """Which images make which step, and how each is drawn: a pure function of (seed, step).

    A run that is resumed at a step sees what the unbroken one would have seen. upright: of each
    image, where known; a batch is then of upright or of lying ones (one of an epoch may be mixed),
    since both together are padded to squares, and batches come in any order.
    """

    def __init__(
        self, *, count: int, batch_size: int, seed: int, upright: Sequence[bool] = ()
    ) -> None:
        self.count, self.batch_size, self.seed = count, min(batch_size, count), seed
        self.upright = np.array(upright, dtype=bool)
        self.steps_per_epoch = -(-count // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Indices of the images of a step. The one of an epoch that is not full is filled with
        others of the epoch: its first ones, or of the same orientation."""
        epoch, part = divmod(step, self.steps_per_epoch)
        draw = np.random.default_rng((self.seed, epoch))
        order = draw.permutation(self.count)
        if self.upright.any():
            order = order[np.argsort(self.upright[order], kind="stable")]
            part = int(draw.permutation(self.steps_per_epoch)[part])
            first = min(part * self.batch_size, self.count - self.batch_size)
        else:
            first = part * self.batch_size
        places = np.arange(first, first + self.batch_size) % self.count
        return [int(i) for i in order[places]]

    def generator(self, step: int, place: int = 0) -> torch.Generator:
        """The generator of what else is drawn in a step: 0 for all of it, i + 1 for its i-th image,
        so that an image sees the same draws whichever process takes it."""
        mixed = np.random.SeedSequence((self.seed, step, place)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed >> 1))
