"""Affinity refinement: speed of its parts, and what it does to flawed masks of a data folder.

    python benchmarks/affinity.py DATA [--images 24] [--stride 4] [--weights mobilenet_v2.pt]

DATA holds images/ and instances.json (COCO). True masks are eroded, dilated, holed and coarsened;
the table is their mIoU at image size before and after, in points. With --weights (a torchvision
MobileNetV2 state dict) the semantic term is measured too. --out keeps everything as JSON.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from sapnet.affinity.local import cascade, local_kernel
from sapnet.affinity.propagate import propagate
from sapnet.affinity.refine import finalize, refine
from sapnet.affinity.tree import build_tree
from sapnet.config import RefineConfig

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
FAMILIES = ("eroded", "dilated", "holes", "coarse")
LEAST_AREA = 64  # pixels of the image: below it, a family has nothing to take away
MOST_OBJECTS = 20


@dataclass
class Scene:
    image: Tensor  # (3, H, W) normalised
    truth: np.ndarray  # (N, H, W) bool
    flawed: Tensor  # (families * N, h, w) at mask size
    features: list[Tensor]


def flaws(mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One mask of each family, float, at image size; flaws grow with the object."""
    side = np.sqrt(mask.sum())
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    eroded = inside > 0.1 * side
    dilated = ndimage.distance_transform_edt(~mask) <= max(1.0, 0.1 * side)
    holes, (ys, xs) = mask.copy(), np.nonzero(mask)
    rows, cols = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for k in rng.integers(len(ys), size=4):
        holes &= (rows - ys[k]) ** 2 + (cols - xs[k]) ** 2 > (0.14 * side) ** 2
    height, width = mask.shape
    whole = torch.from_numpy(mask[None, None].astype(np.float32))
    cells = functional.avg_pool2d(functional.pad(whole, (0, -width % 16, 0, -height % 16)), 16)
    coarse = functional.interpolate(cells, scale_factor=16, mode="bilinear")[0, 0]
    kept = eroded if eroded.any() else mask
    return [m.astype(np.float32) for m in (kept, dilated, holes)] + [
        coarse[:height, :width].numpy()
    ]


def truths(folder: Path, images: int) -> Iterator[tuple[Path, np.ndarray]]:
    data = json.loads((folder / "instances.json").read_text())
    for info in data["images"][:images]:
        size, masks = (info["height"], info["width"]), []
        for a in data["annotations"]:
            if a["image_id"] != info["id"] or a.get("iscrowd") or len(masks) == MOST_OBJECTS:
                continue
            shape = a["segmentation"]
            if isinstance(shape, list) or isinstance(shape["counts"], list):
                shape = coco_mask.frPyObjects(shape, *size)
            rle = coco_mask.merge(shape) if isinstance(shape, list) else shape
            mask = coco_mask.decode(rle).astype(bool)
            if mask.sum() >= LEAST_AREA:
                masks.append(mask)
        if masks:
            yield folder / "images" / info["file_name"], np.stack(masks)


def scenes(folder: Path, images: int, stride: float, weights: Path | None) -> list[Scene]:
    rng, out = np.random.default_rng(0), []
    net = None
    if weights:
        state = torch.load(weights, weights_only=True)
        model = torchvision.models.mobilenet_v2()
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
        net = model.features.eval()
    for path, truth in truths(folder, images):
        pixels = np.asarray(Image.open(path).convert("RGB")).copy()
        image = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - MEAN) / STD
        size = tuple(max(1, round(s / stride)) for s in truth.shape[1:])
        by_family = zip(*(flaws(m, rng) for m in truth), strict=True)
        stack = torch.from_numpy(np.concatenate([np.stack(f) for f in by_family]))
        flawed = functional.interpolate(stack[None], size, mode="bilinear", antialias=True)[0]
        features: list[Tensor] = []
        if net is not None:
            x = image[None]
            with torch.no_grad():
                for i, layer in enumerate(net):
                    x = layer(x)
                    if i in (3, 6, 13):  # strides 4, 8, 16
                        features.append(x[0])
        out.append(Scene(image, truth, flawed, features))
    return out


def quality(data: list[Scene], change: Callable[[Scene], Tensor]) -> list[float]:
    """mIoU in points, a family a figure."""
    found: list[list[np.ndarray]] = [[] for _ in FAMILIES]
    for scene in data:
        full = functional.interpolate(change(scene)[None], scene.truth.shape[1:], mode="bilinear")
        masks = (full[0] > 0.5).numpy().reshape(len(FAMILIES), *scene.truth.shape)
        for family, some in zip(found, masks, strict=True):
            both, either = some & scene.truth, some | scene.truth
            family.append(both.sum((1, 2)) / np.maximum(either.sum((1, 2)), 1))
    return [100 * float(np.concatenate(f).mean()) for f in found]


def table(data: list[Scene]) -> dict[str, list[float]]:
    default = RefineConfig()
    pixel = replace(default, levels="pixel")
    rows = {
        "as printed": replace(pixel, window=None, balance=0.0, zeta_scale=1.0, zeta_local=0.15),
        "+ window": replace(pixel, balance=0.0),
        "balance alone": replace(pixel, use_global=False, use_local=False),
        "global": replace(pixel, use_local=False),
        "local": replace(pixel, use_global=False),
        "pixel": pixel,
    }
    if data[0].features:
        rows |= {"semantic": replace(default, levels="semantic"), "both": default}
    results = {"before": quality(data, lambda s: s.flawed)}
    print(f"{'':14}" + "".join(f"{f:>15}" for f in (*FAMILIES, "mean")))
    for name, config in {"before": None, **rows}.items():
        if config is not None:
            results[name] = quality(
                data, lambda s, c=config: finalize(refine(s.flawed, s.image, s.features, config=c))
            )
        values = [*results[name], statistics.mean(results[name])]
        base = [*results["before"], statistics.mean(results["before"])]
        cells = (f"{v:6.1f} ({v - b:+5.1f})" for v, b in zip(values, base, strict=True))
        print(f"{name:14}" + "".join(f"{c:>15}" for c in cells), flush=True)
    return results


def speed(image: Tensor, masks: int = 20, size: tuple[int, int] = (200, 304)) -> dict[str, dict]:
    """Milliseconds, median and quartiles of 15 runs, one thread."""
    guide = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    probs = torch.rand(masks, *size, generator=torch.Generator().manual_seed(0))
    tree, weights, array = build_tree(guide), local_kernel(guide), probs.numpy()
    pixel = RefineConfig(levels="pixel")
    parts: dict[str, Callable[[], object]] = {
        "tree": lambda: build_tree(guide),
        "propagate": lambda: propagate(tree, array),
        "local kernel": lambda: local_kernel(guide),
        "local cascade": lambda: cascade(weights, probs),
        "refine, pixel": lambda: refine(probs, guide, config=pixel, pixel_tree=tree),
    }
    out = {}
    for name, part in parts.items():
        part()
        times = []
        for _ in range(15):
            start = time.perf_counter()
            part()
            times.append(1000 * (time.perf_counter() - start))
        low, median, high = statistics.quantiles(times, n=4)
        out[name] = {"median_ms": median, "quartiles_ms": [low, high]}
        print(f"{name:14} {median:7.1f} ms  ({low:.1f} to {high:.1f})")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--stride", type=float, default=4.0, help="image pixels a mask pixel")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    about = {"machine": platform.processor() or platform.machine(), "commit": commit.stdout.strip()}
    data = scenes(args.data, args.images, args.stride, args.weights)
    objects = sum(len(s.truth) for s in data)
    print(
        f"{args.data.name}: {len(data)} images, {objects} objects, stride {args.stride:g}; {about}"
    )
    result = {**about, "speed": speed(data[0].image), "quality": table(data)}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
