"""What the prompter learns from: crops of images with masks, clicks and windows, all augmented.

A crop is treated as an image of its own. It is cut at one of two scales, those of inference: the
whole image at about 512 pixels, and a part of it at about twice that for small objects.
"""

import io
import json
import math
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt
from torchvision.ops import roi_align

from sapnet.proposals.prompter.windows import FINE

CANVAS = 384  # pixels a side of a crop
WINDOWS = 8  # a crop
FREE_LICENCES = (4, 5, 7, 8)  # COCO's ids: BY, BY-SA, no known restrictions, US government
SETS = (
    ("coco", 3.0),
    ("cocoperson", 1.5),
    ("animals", 1.0),
    ("clothing", 1.0),
    ("nuclei", 1.0),
    ("facades", 0.7),
    ("medwaste", 0.7),
    ("mushrooms", 0.7),
    ("strawberry", 0.7),
    ("warehouse", 0.7),
    ("flakes", 0.5),
    ("roofs", 0.7),
    ("satcars", 0.5),
    ("limbs", 0.3),
    ("occluded", 0.5),
    ("boards", 0.4),
    ("class5", 0.4),
)
_ANY_WAY_UP = {"nuclei", "roofs", "satcars", "flakes", "mushrooms", "boards", "medwaste"}
_MOST = 14  # masks of a crop that are looked at
_LONG = 512  # pixels, as at inference


@dataclass(frozen=True)
class Entry:
    """An image with masks. segments: compressed RLEs at (height, width)."""

    set: str
    path: Path
    height: int
    width: int
    segments: list[dict[str, Any]]
    weight: float


def entries(root: Path, split: str, *, free: bool) -> list[Entry]:
    """The images of a split ("train" or "val").

    free: only what may train weights that are shipped: of COCO's photographs those whose licence
    allows changes and commercial use; the other sets are free as a whole.
    """
    out = []
    for name, weight in SETS:
        folder = root / name
        content = json.loads((folder / "instances.json").read_text())
        segments: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            segments.setdefault(annotation["image_id"], []).append(annotation["segmentation"])
        for image in content["images"]:
            allowed = not free or image.get("licence_id", 4) in FREE_LICENCES
            masks = segments.get(image["id"], [])
            if image["split"] == split and masks and allowed:
                path = folder / "images" / image["file_name"]
                drawn = weight * min(3.0, math.sqrt(len(masks)))
                out.append(Entry(name, path, image["height"], image["width"], masks, drawn))
    return out


@dataclass
class Batch:
    """Crops and N windows of them.

    colours: (B, 3, CANVAS, CANVAS) uint8. sizes: (B, 2) float. images: (N,). boxes: (N, 4).
    clicks: (N, 2). others: N arrays (R, 2). target: (N, FINE, FINE) in [0, 1]. area: (N,) of the
    whole object, in window cells. fits: (N,) whether the window is of a size that suits.
    """

    colours: torch.Tensor
    sizes: torch.Tensor
    images: torch.Tensor
    boxes: torch.Tensor
    clicks: torch.Tensor
    others: list[torch.Tensor]
    target: torch.Tensor
    area: torch.Tensor
    fits: torch.Tensor
    sets: list[str]


class Stream(torch.utils.data.IterableDataset[Batch]):
    """Batches without end. seed: another one a worker and a start, so that a resumed run goes on
    with other crops than it began with."""

    def __init__(self, chosen: Sequence[Entry], crops: int, seed: int) -> None:
        self.chosen, self.crops, self.seed = chosen, crops, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        if worker:  # what stops the group of processes must not end it before the state is saved
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        rng = random.Random(f"{self.seed} {worker.id if worker else 0}")
        weights = [e.weight for e in self.chosen]
        while True:
            crops = []
            while len(crops) < self.crops:
                crop = cut(rng.choices(self.chosen, weights)[0], rng)
                if crop is not None:
                    crops.append(crop)
            yield collate(crops)


def collate(crops: Sequence[dict[str, Any]]) -> Batch:
    counts = [len(c["boxes"]) for c in crops]

    def joined(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([c[name] for c in crops]).astype(np.float32))

    return Batch(
        colours=torch.from_numpy(np.stack([c["image"] for c in crops])).permute(0, 3, 1, 2),
        sizes=torch.tensor([c["size"] for c in crops], dtype=torch.float32),
        images=torch.repeat_interleave(torch.arange(len(crops)), torch.tensor(counts)),
        boxes=joined("boxes"),
        clicks=joined("clicks"),
        others=[torch.from_numpy(o) for c in crops for o in c["others"]],
        target=torch.cat([c["target"] for c in crops]),
        area=joined("area"),
        fits=joined("fits") > 0,
        sets=[c["set"] for c in crops for _ in range(len(c["boxes"]))],
    )


def cut(entry: Entry, rng: random.Random, *, plain: bool = False) -> dict[str, Any] | None:
    """One crop with its windows, or None where nothing in it can be learned.

    plain: without augmentation, every window of a fitting size (for validation).
    """
    order = rng.sample(range(len(entry.segments)), len(entry.segments))
    boxes = coco_mask.toBbox([entry.segments[i] for i in order]).reshape(-1, 4)
    zoomed, zoom = _scale(entry, boxes[0], rng, plain)
    ratio = zoom, zoom
    if not plain:
        ratio = zoom * math.exp(rng.uniform(-0.08, 0.08)), zoom * math.exp(rng.uniform(-0.08, 0.08))
    frame, size = _frame(entry, boxes[0], ratio, rng)
    meets = (boxes[:, 0] < frame[2]) & (boxes[:, 0] + boxes[:, 2] > frame[0])
    meets &= (boxes[:, 1] < frame[3]) & (boxes[:, 1] + boxes[:, 3] > frame[1])
    near = [i for i, m in zip(order, meets, strict=True) if m][:_MOST]
    decoded = coco_mask.decode([entry.segments[i] for i in near])
    masks, usable = [], []
    for k in range(len(near)):
        full = float(decoded[:, :, k].sum()) * ratio[0] * ratio[1]
        if full < 16 or sum(usable) >= WINDOWS:
            continue
        plane = Image.fromarray(decoded[:, :, k] * np.uint8(255))
        mask = np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box=frame))
        seen = np.count_nonzero(mask > 127)
        if seen >= 9:
            masks.append(mask)
            usable.append(seen >= 0.3 * full and seen >= (60 if zoomed else 400))
    if not any(usable):
        return None
    with Image.open(entry.path) as source:
        image = source.convert("RGB").resize(size, Image.Resampling.BILINEAR, box=frame)
    pixels = np.asarray(image)
    if not plain:
        pixels, masks = _turned(pixels, masks, entry.set, rng)
        pixels = _recoloured(pixels, rng)
    return _windows(entry, pixels, masks, usable, zoomed, rng, plain)


def _scale(entry: Entry, box: np.ndarray, rng: random.Random, plain: bool) -> tuple[bool, float]:
    """Whether to look closer, and how many pixels of the crop are one of the image."""
    longest = max(entry.height, entry.width)
    side = max(box[2], box[3]) * _LONG / longest
    zoomed = rng.random() < (0.9 if side < 50 else 0.5 if side < 110 else 0.05)
    if plain:
        zoomed = side < 70
    target = min(2 * _LONG, 2 * longest) if zoomed else _LONG
    spread = 0.0 if plain else rng.uniform(-0.35, 0.25)
    return zoomed, target * math.exp(spread) / longest


def _frame(
    entry: Entry, box: np.ndarray, ratio: tuple[float, float], rng: random.Random
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """The part of the image (xyxy) that a crop shows, and the crop's width and height."""
    spans, sizes = [], []
    for axis, length in ((0, entry.width), (1, entry.height)):
        scaled = max(round(length * ratio[axis]), 16)
        if scaled <= CANVAS:
            spans.append((0.0, float(length)))
            sizes.append(scaled)
            continue
        extent = CANVAS * length / scaled
        centre = box[axis] + box[2 + axis] * rng.uniform(0.3, 0.7)
        start = centre - extent * rng.uniform(0.2, 0.8)
        start = min(max(start, 0.0), length - extent)
        spans.append((start, start + extent))
        sizes.append(CANVAS)
    (left, right), (top, bottom) = spans
    return (left, top, right, bottom), (sizes[0], sizes[1])


def _turned(
    pixels: np.ndarray, masks: list[np.ndarray], name: str, rng: random.Random
) -> tuple[np.ndarray, list[np.ndarray]]:
    flips = [rng.random() < 0.5, name in _ANY_WAY_UP and rng.random() < 0.5]
    quarter = name in _ANY_WAY_UP and rng.random() < 0.5

    def turn(values: np.ndarray) -> np.ndarray:
        if flips[0]:
            values = values[:, ::-1]
        if flips[1]:
            values = values[::-1]
        return np.ascontiguousarray(values.swapaxes(0, 1) if quarter else values)

    return turn(pixels), [turn(m) for m in masks]


def _recoloured(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    """Blur, compression, saturation, gamma, contrast, tint, noise; each now and then."""
    image = Image.fromarray(pixels)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(30, 90))
        image = Image.open(buffer).convert("RGB")
    if rng.random() < 0.2:
        return np.asarray(image)
    if rng.random() < 0.6:
        colour = 0.0 if rng.random() < 0.1 else rng.uniform(0.5, 1.5)
        image = ImageEnhance.Color(image).enhance(colour)
    x = np.linspace(0, 1, 256)[None]
    if rng.random() < 0.2:
        x = x ** math.exp(rng.uniform(-0.35, 0.35))
    gains = np.array([[math.exp(rng.gauss(0, 0.07))] for _ in range(3)])
    x = (x - 0.5) * math.exp(rng.uniform(-0.35, 0.35)) * gains + 0.5 + rng.uniform(-0.12, 0.12)
    image = image.point((np.clip(x, 0, 1) * 255).round().astype(int).ravel().tolist())
    if rng.random() < 0.08:
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
        noisy = np.asarray(image) + noise * rng.uniform(3, 12)
        return np.clip(noisy, 0, 255).astype(np.uint8)
    return np.asarray(image)


def _windows(
    entry: Entry,
    pixels: np.ndarray,
    masks: list[np.ndarray],
    usable: list[bool],
    zoomed: bool,
    rng: random.Random,
    plain: bool,
) -> dict[str, Any]:
    able = [i for i, u in enumerate(usable) if u]
    chosen = rng.sample(able, min(len(able), WINDOWS))
    if not plain:
        chosen += rng.choices(able, k=WINDOWS - len(chosen))
    shown = rng.random() < 0.75
    depths = [depth_of(mask) for mask in masks]
    known = [_click(depth, rng) for depth in depths]
    boxes, clicks, others, fits = [], [], [], []
    for index in chosen:
        x, y = _click(depths[index], rng)
        box, fit = _window(masks[index], x, y, zoomed, rng, plain)
        boxes.append(box)
        clicks.append((x, y))
        fits.append(fit)
        listed = [p for j, p in enumerate(known) if j != index and rng.random() < 0.85]
        others.append(np.array(listed if shown else [], np.float32).reshape(-1, 2))
    drawn = torch.from_numpy(np.stack([masks[i] for i in chosen])).float()[:, None] / 255
    rois = torch.tensor(boxes, dtype=torch.float32)
    rois = torch.cat([torch.arange(len(rois), dtype=torch.float32)[:, None], rois], 1)
    target = roi_align(drawn, rois, FINE, 1.0, sampling_ratio=2, aligned=True)[:, 0]
    cell = (rois[:, 3] - rois[:, 1]) / FINE
    canvas = np.full((CANVAS, CANVAS, 3), 127, np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return {
        "image": canvas,
        "size": pixels.shape[:2],
        "boxes": np.array(boxes),
        "clicks": np.array(clicks),
        "others": others,
        "target": target,
        "area": (drawn.sum((1, 2, 3)) / cell**2).numpy(),
        "fits": np.array(fits),
        "set": entry.set,
    }


def depth_of(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Row and column of a part of the crop that holds the mask, and its pixels' depths there."""
    held = mask > 127
    rows, columns = np.flatnonzero(held.any(1)), np.flatnonzero(held.any(0))
    part = held[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return rows[0], columns[0], distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]


def _click(depth: tuple[int, int, np.ndarray], rng: random.Random) -> tuple[float, float]:
    """A place on the mask, mostly well inside: people click near the middle, not at the rim."""
    top, left, values = depth
    rows, columns = np.nonzero(values >= rng.choice((0.1, 0.4, 0.6, 0.6, 0.6, 0.8)) * values.max())
    at = rng.randrange(len(rows))
    return left + columns[at] + rng.random(), top + rows[at] + rng.random()


def _window(
    mask: np.ndarray, x: float, y: float, zoomed: bool, rng: random.Random, plain: bool
) -> tuple[tuple[float, float, float, float], bool]:
    """A square (xyxy) round a click; whether it suits the object."""
    held = mask > 127
    rows, columns = np.flatnonzero(held.any(1)), np.flatnonzero(held.any(0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    reach = max(x - left, right - x, y - top, bottom - y, 4.0)
    least, most = (56.0, 330.0) if zoomed else (130.0, 1600.0)
    fit = True
    if plain or rng.random() < 0.62:
        side = 2 * reach * math.exp(rng.uniform(math.log(1.05), math.log(2.6)))
        side = min(max(side, least), most)
    elif rng.random() < 0.6:
        factor = math.exp(rng.uniform(math.log(0.35), math.log(6)))
        side, fit = min(max(2 * reach * factor, least), most), 1.0 <= factor <= 2.7
    else:  # round the object, as after a first mask
        extent = max(right - left, bottom - top, 8)
        side = extent * math.exp(rng.uniform(math.log(1.15), math.log(2.2)))
        cx = (left + right) / 2 + extent * rng.uniform(-0.15, 0.15)
        cy = (top + bottom) / 2 + extent * rng.uniform(-0.15, 0.15)
        side = max(side, 2.1 * abs(x - cx), 2.1 * abs(y - cy), least)
        return (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2), True
    half = side / 2
    return (x - half, y - half, x + half, y + half), fit
