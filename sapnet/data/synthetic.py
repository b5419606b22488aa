"""Generated scenes with true masks: the demo's data, and small data for tests.

Three classes (beetle, mushroom, flower) told apart by shape and texture, not by hue. Each object
is made of parts of different colour, so that the plainest segment around its point is a part of
it; neighbours of the same class touch and share their colours; borders are soft and the ground is
textured. Everything is drawn from signed distances, so masks are exact. Plain numpy and Pillow.
"""

import colorsys
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from sapnet.data.masks import area, encode, tight_box
from sapnet.types import BoolArray, ByteArray, FloatArray

CLASSES = ("beetle", "mushroom", "flower")
Color = npt.NDArray[np.float64]


class Scenes(NamedTuple):
    """The paths of a generated dataset."""

    images: Path
    points: Path
    truth: Path


@dataclass(frozen=True, slots=True)
class Thing:
    """One object to draw. Centre and radius in pixels, angle in radians, hue in [0, 1)."""

    kind: int
    x: float
    y: float
    radius: float
    angle: float
    hue: float
    seed: int


def make_scenes(
    folder: Path, count: int, size: tuple[int, int] = (224, 224), seed: int = 0, start_id: int = 1
) -> Scenes:
    """Write `count` scenes of `size` (h, w): images/*.png, points.json, instances.json.

    Image ids run from start_id; a scene depends on seed and its own id alone, so that the first
    ten of twenty are the same as ten, and another start_id gives scenes not seen before. The two
    files share their annotation ids. Sizes below 96 pixels have no room: ValueError.
    """
    if min(size) < 96:
        raise ValueError(f"scenes need at least 96×96 pixels, not {size[1]}×{size[0]}")
    paths = Scenes(folder / "images", folder / "points.json", folder / "instances.json")
    paths.images.mkdir(parents=True, exist_ok=True)
    images, points, truth = [], [], []
    for image_id in range(start_id, start_id + count):
        rng = np.random.default_rng([seed, image_id])
        pixels, things, masks = draw_scene(size, rng)
        name = f"scene-{image_id:05d}.png"
        Image.fromarray(pixels).save(paths.images / name)
        images.append({"id": image_id, "file_name": name, "width": size[1], "height": size[0]})
        for index, (thing, mask) in enumerate(zip(things, masks, strict=True)):
            common = {
                "id": image_id * 100 + index,
                "image_id": image_id,
                "category_id": thing.kind + 1,
            }
            points.append({**common, "point": _point_in(mask, rng)})
            truth.append({**common, **_instance(mask)})
    categories = [{"id": kind + 1, "name": name} for kind, name in enumerate(CLASSES)]
    head: dict[str, Any] = {"images": images, "categories": categories}
    paths.points.write_text(json.dumps({**head, "annotations": points}))
    paths.truth.write_text(json.dumps({**head, "annotations": truth}))
    return paths


def draw_scene(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[ByteArray, list[Thing], list[BoolArray]]:
    """One scene: (H, W, 3) uint8 pixels, its 3 to 7 objects, the (H, W) mask of each that shows."""
    things = _place(size, rng)
    canvas = _ground(size, rng)
    yx = np.mgrid[: size[0], : size[1]] + 0.5
    masks: list[BoolArray] = []
    for thing in things:
        distance, color = _shape_of(thing, yx)
        shadow = _soft(_shape_of(replace(thing, x=thing.x + 2, y=thing.y + 3), yx)[0] - 1.0, 3.0)
        canvas *= 1 - 0.2 * shadow[..., None]
        alpha = _soft(distance, 0.7)[..., None]
        rim = 0.8 + 0.2 * (1 - _soft(-distance - 2.0, 1.2))[..., None]
        canvas = canvas * (1 - alpha) + color * rim * alpha
        mask = distance < 0
        masks = [hidden & ~mask for hidden in masks]
        masks.append(mask)
    light = 1 + 0.12 * _noise(size, rng, 2)[..., None]
    canvas = canvas * light + rng.normal(0, 0.018, canvas.shape)
    return (np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), things, masks


def _place(size: tuple[int, int], rng: np.random.Generator) -> list[Thing]:
    """3 to 7 objects: each starts a group, or touches one of its own class already there."""
    height, width = size
    wanted = int(rng.integers(3, 8))
    things: list[Thing] = []
    for attempt in range(400):
        if len(things) == wanted:
            break
        # In a crowded scene smaller ones still find room, so that there are never fewer than 3.
        radius = min(size) * float(rng.uniform(0.11, 0.19)) * (1 - attempt / 800)
        if things and rng.random() < 0.55:
            mate = things[int(rng.integers(len(things)))]
            way = rng.uniform(0, 2 * np.pi)
            gap = (mate.radius + radius) * rng.uniform(0.86, 0.98)
            x, y = mate.x + gap * np.cos(way), mate.y + gap * np.sin(way)
            kind, hue = mate.kind, (mate.hue + rng.normal(0, 0.04)) % 1
        else:
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            kind, hue = int(rng.integers(len(CLASSES))), rng.random()
        room = radius * 0.9
        inside = room < x < width - room and room < y < height - room
        free = all(
            np.hypot(x - t.x, y - t.y) > (radius + t.radius) * (0.84 if kind == t.kind else 1.0)
            for t in things
        )
        if inside and free:
            turn, own = rng.uniform(0, 2 * np.pi), int(rng.integers(2**31))
            things.append(Thing(kind, float(x), float(y), radius, turn, float(hue), own))
    return things


def _shape_of(thing: Thing, yx: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], Color]:
    """(H, W) signed distance in pixels (inside is negative) and the (H, W, 3) colour, 0 to 1."""
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    dx, dy = (yx[1] - thing.x) / thing.radius, (yx[0] - thing.y) / thing.radius
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    rng = np.random.default_rng(thing.seed)
    distance, color = _PAINTERS[thing.kind](u, v, thing.hue, rng)
    return distance * thing.radius, color


def _beetle(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], hue: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Color]:
    """A striped oval back and a round head of another colour."""
    body, head = _ellipse(u + 0.2, v, 0.78, 0.58), _ellipse(u - 0.66, v, 0.32, 0.36)
    wing, dark = _hsv(hue, 0.75, 0.8), _hsv(hue, 0.8, 0.6)
    stripes = np.sin((u + 0.2) * rng.uniform(17, 21)) > 0.35
    color = np.where(stripes[..., None], dark, wing)
    color = np.where((np.abs(v) < 0.045)[..., None], _hsv(hue, 0.7, 0.5), color)
    front = _hsv(hue + rng.choice([-1, 1]) * rng.uniform(0.1, 0.17), 0.7, 0.92)
    return np.minimum(body, head), np.where(
        (head < np.maximum(body, -0.1))[..., None], front, color
    )


def _mushroom(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], hue: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Color]:
    """A half-round cap with pale spots on a pale stem."""
    cap = np.maximum(_ellipse(u, v + 0.02, 0.92, 0.86), v - 0.12)
    stem = np.maximum(np.abs(u) - (0.24 + 0.08 * np.clip(v, 0, 1)), np.abs(v - 0.45) - 0.45)
    color = np.broadcast_to(_hsv(hue, 0.8, 0.85), (*u.shape, 3))
    for _ in range(int(rng.integers(5, 8))):
        su, sv, size = rng.uniform(-0.65, 0.65), rng.uniform(-0.6, 0.0), rng.uniform(0.07, 0.13)
        spot = np.hypot(u - su, v - sv) < size
        color = np.where(spot[..., None], _hsv(hue + 0.1, 0.15, 0.97), color)
    pale = _hsv(hue + rng.uniform(0.04, 0.1), 0.5, 0.88)
    return np.minimum(cap, stem), np.where((cap < 0)[..., None], color, pale)


def _flower(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], hue: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Color]:
    """Five or six petals, paler outwards, around a disc of another colour."""
    reach, around = np.hypot(u, v), np.arctan2(v, u)
    petals = int(rng.integers(5, 7))
    outline = 0.76 + 0.2 * np.cos(petals * around)
    color = _hsv(hue, 0.7, 0.75) + (reach * 0.22)[..., None]
    veins = np.abs(np.sin(petals * around)) < 0.12
    color = np.where(veins[..., None], color * 0.8, color)
    heart = _hsv(hue + rng.choice([-1, 1]) * rng.uniform(0.12, 0.2), 0.75, 0.92)
    dotted = np.sin(u * 38) * np.sin(v * 38) > 0.3
    middle = np.where(dotted[..., None], heart * 0.75, heart)
    return (reach - outline) * 0.8, np.where((reach < 0.36)[..., None], middle, color)


_Painter = Callable[
    [npt.NDArray[np.float64], npt.NDArray[np.float64], float, np.random.Generator],
    tuple[npt.NDArray[np.float64], Color],
]
_PAINTERS: tuple[_Painter, ...] = (_beetle, _mushroom, _flower)


def _ellipse(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], a: float, b: float
) -> npt.NDArray[np.float64]:
    """Near its outline, the signed distance to an ellipse: value over length of its gradient."""
    value = np.hypot(u / a, v / b)
    slope = np.hypot(u / a**2, v / b**2) / np.maximum(value, 1e-6)
    return (value - 1) / np.maximum(slope, 1e-6)


def _soft(distance: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    """1 inside, 0 outside, with a smooth step of `width` pixels on the outline."""
    return 1 / (1 + np.exp(np.clip(2 * distance / width, -30, 30)))


def _hsv(hue: float, saturation: float, value: float) -> Color:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _ground(size: tuple[int, int], rng: np.random.Generator) -> Color:
    """Dull and dark earth or grass: large patches, small grain."""
    base, other = (_hsv(rng.uniform(0.07, 0.4), rng.uniform(0.15, 0.4), 0.32) for _ in range(2))
    patches = 0.5 + 0.5 * _noise(size, rng, 5)[..., None]
    grain = 0.045 * _noise(size, rng, 24) + 0.05 * _noise(size, rng, 60)
    return base * patches + other * (1 - patches) + grain[..., None]


def _noise(size: tuple[int, int], rng: np.random.Generator, cells: int) -> FloatArray:
    """Smooth noise in about [-1, 1] with `cells` bumps along the shorter side."""
    rows, columns = (max(2, round(side * cells / min(size))) + 1 for side in size)
    coarse = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    smooth = coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32)


def _point_in(mask: BoolArray, rng: np.random.Generator) -> list[float]:
    """Any pixel of the object, on any of its parts, but three pixels from its border."""
    inner = mask.copy()
    for _ in range(3):
        padded = np.pad(inner, 1)
        inner &= padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    rows, columns = np.nonzero(inner if inner.any() else mask)
    pick = int(rng.integers(len(rows)))
    return [float(columns[pick]) + 0.5, float(rows[pick]) + 0.5]


def _instance(mask: BoolArray) -> dict[str, Any]:
    rle = encode(mask)
    return {
        "segmentation": rle,
        "bbox": tight_box(rle),
        "area": area(rle),
        "iscrowd": 0,
    }


def main(folder: Path, count: int = 24, seed: int = 0, size: int = 224, start_id: int = 1) -> None:
    """Write COUNT scenes of SIZE×SIZE pixels with points and true masks into FOLDER."""
    paths = make_scenes(folder, count, (size, size), seed, start_id)
    typer.echo(f"{count} scenes in {paths.images}, {paths.points}, {paths.truth}")


if __name__ == "__main__":
    typer.run(main)
