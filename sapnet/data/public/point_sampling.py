"""One point per object, drawn from its mask: what an annotator's click would be.

`quasi-center` is the papers' rule: SAPNet and SAPNet++ train on the points of P2BNet (Chen et al.,
ECCV 2022, section 4.1), a Gaussian about the object's centre, cut off to a central ellipse where
the mask reaches into it. `center` is the pixel deepest inside the mask, `random` any of its pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from sapnet.data.masks import decode
from sapnet.types import BoolArray

RULES = ("quasi-center", "center", "random")
SPREAD = 0.25  # σ of the Gaussian, in sides of the mask's own bounding box
ELLIPSE = 0.25  # κ: the ellipse's axes, in the same unit
LONGEST_HALF_AXIS = 96.0  # pixels


def draw_points(
    instances: dict[str, Any], rule: str, seed: int, jitter: float = 0.0
) -> dict[str, Any]:
    """A points document: COCO's form, `point` [x, y] in place of masks and boxes.

    Args:
        instances: COCO with compressed RLE.
        rule: one of RULES.
        seed: the draw of an object depends on it and the object's id alone.
        jitter: standard deviation, in pixels, of Gaussian noise on each point (P2Seg, Table 13),
            which stays within its image but need not stay in its mask.

    Returns:
        Crowds get no point, nor does a mask without a pixel. An image without a point is left out,
        as the papers' training leaves it out.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is not one of {', '.join(RULES)}")
    annotations = []
    for row in instances["annotations"]:
        if row["iscrowd"]:
            continue
        rng = np.random.default_rng([seed, row["id"]])
        mask = decode(row["segmentation"])
        point = draw_point(mask, rule, rng)
        if point is not None:
            if jitter:
                point = jittered(point, jitter, mask.shape, rng)
            kept = {key: row[key] for key in ("id", "image_id", "category_id")}
            annotations.append({**kept, "point": list(point)})
    pointed = {row["image_id"] for row in annotations}
    images = [row for row in instances["images"] if row["id"] in pointed]
    return {"images": images, "annotations": annotations, "categories": instances["categories"]}


def draw_point(mask: BoolArray, rule: str, rng: np.random.Generator) -> tuple[float, float] | None:
    """The centre (x, y) of one of the pixels of a mask, (H, W) bool; None where it has none."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    if rule == "center":
        index = deepest(mask, rows, columns)
    elif rule == "random":
        index = int(rng.integers(len(rows)))
    else:
        index = int(rng.choice(len(rows), p=quasi_center(rows, columns)))
    return float(columns[index]) + 0.5, float(rows[index]) + 0.5


def jittered(
    point: tuple[float, float], sigma: float, size: tuple[int, ...], rng: np.random.Generator
) -> tuple[float, float]:
    """A point moved by Gaussian noise of `sigma` pixels, within an image of (h, w)."""
    x, y = np.asarray(point) + rng.normal(0, sigma, 2)
    return float(np.clip(x, 0, size[1] - 0.5)), float(np.clip(y, 0, size[0] - 0.5))


Indices = npt.NDArray[np.int64]


def deepest(mask: BoolArray, rows: Indices, columns: Indices) -> int:
    """Which of a mask's pixels is farthest from its outside, the image's border included."""
    top, left = rows.min(), columns.min()
    crop = mask[top : rows.max() + 1, left : columns.max() + 1]
    depth = distance_transform_edt(np.pad(crop, 1))[1:-1, 1:-1]
    return int(depth[rows - top, columns - left].argmax())


def quasi_center(rows: Indices, columns: Indices) -> npt.NDArray[np.float64]:
    """The probability of each of a mask's pixels: RG(p; 0, σ, κ) of P2BNet. Sums to 1."""
    weight = np.ones(len(rows))
    within = np.zeros(len(rows))
    for place in (rows, columns):
        side = place.max() - place.min() + 1
        offset = place - (place.min() + place.max()) / 2
        weight *= np.exp(-((offset / side / SPREAD) ** 2) / 2)
        within += (offset / min(LONGEST_HALF_AXIS, ELLIPSE * side / 2)) ** 2
    if (within <= 1).any():
        weight[within > 1] = 0
    probability: npt.NDArray[np.float64] = weight / weight.sum()
    return probability
