"""Affinity refinement (MLAR) on its own: flawed true masks in, better ones out?

    python benchmarks/affinity.py --data DIR [--data DIR] [--images 16] [--weights FILE] [--json F]

DIR holds images/ and instances.json (COCO). True masks are eroded, dilated, holed, and coarsened
to stride 16; the tables give their mIoU and boundary IoU at image size, in points, before and
after: by level (the paper's Table 9 in small) and by step (Table 10). Masks, image and features
have the sizes that the `cpu` preset gives them when it makes pseudo-masks; the features are its
backbone's at strides 4, 8, 16, with --weights (a torchvision state dict) or what is to be had, and
no FPN. The same images, flaws and figures every time. --speed times the parts as well.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
import torch
import typer
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.resolve import resolve_config
from sapnet.config.schema import RefineConfig
from sapnet.data.annotations.ground_truth import as_rle, read_truth
from sapnet.data.images import read_rgb
from sapnet.data.samples import input_size, to_tensor
from sapnet.evaluation.boundary_iou import boundary_iou
from sapnet.labelers.affinity.global_filter import propagate
from sapnet.labelers.affinity.local_filter import cascade, local_kernel
from sapnet.labelers.affinity.refine import affinity_guides, pixel_guide, refine, refine_repeatedly
from sapnet.labelers.affinity.tree import build_tree
from sapnet.segmenters.backbones import build_backbone
from sapnet.utils.backbone_file import body_of_file

Row = dict[str, Any]
FLAWS = ("eroded", "dilated", "holes", "coarse")
LEVELS = ("pixel", "semantic", "both")
ONCE, DEFAULT = "global, local × 2", "and again"
LEAST_AREA = 64  # pixels of the image: below it there is nothing to take away
MOST_OBJECTS = 20  # of an image


@dataclass(frozen=True)
class Scene:
    """image: (3, h, w) normalised. truth: (N, H, W) bool. flawed: (4 * N, h', w') in [0, 1], a
    flaw after the other. features: (C, ., .) at strides 4, 8, 16 of the image."""

    image: Tensor
    truth: np.ndarray
    flawed: Tensor
    features: list[Tensor]


def flaws(mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One mask of each kind, float, at image size; what is wrong grows with the object."""
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
    cells = F.avg_pool2d(F.pad(whole, (0, -width % 16, 0, -height % 16)), 16)
    coarse = F.interpolate(cells, scale_factor=16, mode="bilinear")[0, 0, :height, :width]
    kept = eroded if eroded.any() else mask
    return [*(m.astype(np.float32) for m in (kept, dilated, holes)), coarse.numpy()]


def truths(folder: Path, images: int) -> Iterator[tuple[Path, np.ndarray]]:
    """Image file and true masks (N, H, W) of `images` images spread over the set; 0 takes all."""
    data = read_truth(folder / "instances.json")
    infos = data["images"]
    for info in infos[:: max(1, len(infos) // images)][:images] if images else infos:
        size = info["height"], info["width"]
        own = [a for a in data["annotations"] if a["image_id"] == info["id"] and not a["iscrowd"]]
        masks = [coco_mask.decode(as_rle(a["segmentation"], *size)).astype(bool) for a in own]
        masks = [mask for mask in masks if mask.sum() >= LEAST_AREA][:MOST_OBJECTS]
        if masks:
            yield folder / "images" / info["file_name"], np.stack(masks)


def read_scenes(folder: Path, images: int, weights: Path | None) -> tuple[list[Scene], str]:
    """The scenes, and where the weights of their features come from."""
    body = body_of_file(weights) if weights else None
    preset, rng, scenes = resolve_config(body=body), np.random.default_rng(0), []
    network, origin = build_backbone(
        preset.backbone, weights, generator=torch.Generator().manual_seed(0)
    )
    for path, truth in truths(folder, images):
        size = input_size(truth.shape[1:], max(preset.data.short_sides), preset.data.max_long_side)
        image = to_tensor(read_rgb(path), size)
        grid = tuple(-(-side // preset.output.stride) for side in size)
        by_flaw = zip(*(flaws(mask, rng) for mask in truth), strict=True)
        stack = torch.from_numpy(np.concatenate([np.stack(masks) for masks in by_flaw]))
        flawed = F.interpolate(stack[None], grid, mode="bilinear", antialias=True)[0]
        with torch.no_grad():
            features = [level[0] for level in network.body(image[None])[:3]]
        scenes.append(Scene(image, truth, flawed.clamp(0, 1), features))
    return scenes, f"{origin.kind}: {origin.detail}"


def steps(default: RefineConfig) -> dict[str, RefineConfig]:
    """What is measured: the steps of Table 10, the default, and the equations as printed."""
    once = replace(default, polish=0)
    return {
        "neither": replace(once, use_global=False, use_local=False),
        "local × 2": replace(once, use_global=False),
        "global": replace(once, use_local=False),
        **{f"global, local × {n}": replace(once, blocks=n) for n in (1, 2, 3)},
        DEFAULT: default,
        "as printed": replace(
            once, window=None, balance=0.0, zeta_scale=1.0, zeta_scale_semantic=1.0
        ),
    }


def ious(masks: Tensor, truth: np.ndarray) -> np.ndarray:
    """Mask and boundary IoU of soft masks (4 * N, h, w) with the truth (N, H, W): (4, N, 2)."""
    full = F.interpolate(masks[None], truth.shape[1:], mode="bilinear")[0] > 0.5
    pairs = zip(full.numpy(), [*truth] * len(FLAWS), strict=True)
    found = [
        ((mask & true).sum() / max((mask | true).sum(), 1), boundary_iou(mask, true))
        for mask, true in pairs
    ]
    return np.array(found).reshape(len(FLAWS), len(truth), 2)


def run(
    data: Path,
    *,
    images: int = 16,
    weights: Path | None = None,
    config: RefineConfig | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """A row for each flaw ("mean" among them), level and step that was measured on `data`.

    images: how many, evenly spread over the set; 0 takes all. weights: of the backbone. config:
    the default that is put to the test. tell: hears how far it is. IoUs are in [0, 1].
    """
    torch.set_num_threads(1)
    scenes, origin = read_scenes(data, images, weights)
    asked = [
        (step, level, replace(one, levels=level))
        for step, one in steps(config or RefineConfig()).items()
        for level in (LEVELS if step in (ONCE, "as printed") else ("both",))
    ]
    before, after = [], []
    for index, scene in enumerate(scenes):
        before.append(ious(scene.flawed, scene.truth))
        shape, found = (scene.flawed.shape[1], scene.flawed.shape[2]), []
        for *_, one in asked:
            guides = affinity_guides(scene.image, scene.features, shape, one)
            found.append(ious(refine_repeatedly(scene.flawed, guides, config=one), scene.truth))
        after.append(found)
        tell(f"{data.name}: image {index + 1} of {len(scenes)}")
    start = np.concatenate(before, 1).mean(1)  # (4, 2)
    ends = np.concatenate(after, 2).mean(2)  # (asked, 4, 2)
    common = {
        "data": data.name,
        "images": len(scenes),
        "objects": sum(len(scene.truth) for scene in scenes),
        "features": origin,
    }
    return [
        {**common, "level": level, "step": step, "flaw": flaw, **figures(was, now)}
        for (step, level, _), end in zip(asked, ends, strict=True)
        for flaw, was, now in zip(
            (*FLAWS, "mean"), [*start, start.mean(0)], [*end, end.mean(0)], strict=True
        )
    ]


def figures(was: np.ndarray, now: np.ndarray) -> dict[str, float]:
    return {
        "miou_mask_before": float(was[0]),
        "miou_mask": float(now[0]),
        "boundary_iou_before": float(was[1]),
        "boundary_iou": float(now[1]),
    }


def markdown(rows: list[Row]) -> str:
    """Two tables a dataset: one round by level, and both levels by step."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        about = own[0]
        parts.append(
            f"**{data}**: {about['images']} images, {about['objects']} objects, features from "
            f"{about['features']}. mIoU_mask / boundary IoU of flawed true masks, in points, and "
            "their change.\n"
        )
        by_level = [row for row in own if row["step"] == ONCE]
        by_step = [row for row in own if row["level"] == "both"]
        printed = [row for row in own if row["step"] == "as printed" and row["level"] == "pixel"]
        parts.append(_table("level", by_level))
        parts.append(
            _table("step", by_step + [{**r, "step": "as printed, pixel"} for r in printed])
        )
    return "\n".join(parts)


def _table(by: str, rows: list[Row]) -> str:
    flaws = list(dict.fromkeys(row["flaw"] for row in rows))
    lines = [f"| {by} | " + " | ".join(flaws) + " |", "|---" * (len(flaws) + 1) + "|"]
    before = [row for row in rows if row[by] == rows[0][by]]
    start = (
        f"{100 * row['miou_mask_before']:.1f} / {100 * row['boundary_iou_before']:.1f}"
        for row in before
    )
    lines.append("| before | " + " | ".join(start) + " |")
    for name in dict.fromkeys(row[by] for row in rows):
        cells = (
            f"{100 * (row['miou_mask'] - row['miou_mask_before']):+.1f} / "
            f"{100 * (row['boundary_iou'] - row['boundary_iou_before']):+.1f}"
            for row in rows
            if row[by] == name
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def speed(masks: int = 20, size: tuple[int, int] = (200, 304)) -> str:
    """Milliseconds of the parts, median and quartiles of 15 runs, one thread, an image of noise
    and slopes."""
    random = torch.Generator().manual_seed(0)
    guide = F.interpolate(torch.randn(1, 3, 13, 19, generator=random), size, mode="bicubic")[0]
    guide += 0.05 * torch.randn(3, *size, generator=random)
    probs = torch.rand(masks, *size, generator=random)
    tree, kernel, array = build_tree(guide), local_kernel(guide), probs.numpy()
    pixel = RefineConfig(levels="pixel")
    guides = affinity_guides(guide, (), size, pixel)
    parts: dict[str, Callable[[], object]] = {
        "tree": lambda: build_tree(pixel_guide(guide, size)),
        "propagate": lambda: propagate(tree, array),
        "local kernel": lambda: local_kernel(guide),
        "local cascade": lambda: cascade(kernel, probs),
        "refine, pixel": lambda: refine(probs, guides, config=pixel),
    }
    lines = []
    for name, part in parts.items():
        part()
        times = []
        for _ in range(15):
            start = time.perf_counter()
            part()
            times.append(1000 * (time.perf_counter() - start))
        low, median, high = statistics.quantiles(times, n=4)
        lines.append(f"{name:14} {median:7.1f} ms  ({low:.1f} to {high:.1f})")
    return "\n".join(lines)


def main(
    data: Annotated[list[Path], typer.Option(help="folder with images/ and instances.json")],
    images: Annotated[int, typer.Option(help="how many of each set; 0 takes all")] = 16,
    weights: Annotated[Path | None, typer.Option(help="MobileNetV2 state dict")] = None,
    json: Annotated[Path | None, typer.Option(help="keep the rows as JSON")] = None,
    timing: Annotated[bool, typer.Option("--speed", help="time the parts too")] = False,
) -> None:
    began = time.process_time()
    rows = [
        row
        for folder in data
        for row in run(
            folder, images=images, weights=weights, tell=lambda line: typer.echo(line, err=True)
        )
    ]
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    typer.echo(markdown(rows))
    seconds = time.process_time() - began
    typer.echo(
        f"{seconds:.0f} CPU seconds, one thread, {platform.machine()}, commit {commit or 'unknown'}"
    )
    if timing:
        typer.echo(speed())
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


if __name__ == "__main__":
    typer.run(main)
