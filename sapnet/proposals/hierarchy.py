"""Proposals without any weights: the embedded default.

Three sources for each point, all on one superpixel map of the image: figure against ground at
nine scales (figure.py), the growing regions of a merging tree (regions.py), and the stable levels
of a colour flood of the point's own cell (flood.py). The other annotated points split them all.
What is left after near-duplicates is ranked by an estimate of its IoU (ranking.py).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from sapnet.proposals import flood, ranking
from sapnet.proposals.bags import point_pixel
from sapnet.proposals.figure import FigureGround, connected
from sapnet.proposals.regions import IntArray, Regions, chain, merge_tree, superpixels
from sapnet.types import (
    BoolArray,
    ByteArray,
    FloatArray,
    ImageInfo,
    PointAnnotation,
    RawProposals,
)

_VERSION = 1  # part of the fingerprint: raise it when any constant here or below changes
_BLUR = 0.8  # pixels
_GRADIENT = 4.0  # the mean step between neighbours after normalisation
_FLAT = 0.2  # a mean step below this is noise, and is not raised further
_SCALE = 20.0  # of Felzenszwalb's criterion, on normalised colours
_MIN_SIZE, _DENSITY, _MOST = 12, 15000, 2600  # superpixels: least size, pixels / size, how many
_POWER, _EDGE = 0.4, 8.0  # of the merging cost
_RADII = tuple(4.0 * 1.6**k for k in range(9))
_LEVELS = 9  # stable levels of the flood, beside Otsu's
_STEP = 0.9  # areas of two nodes of the tree's chain differ by this ratio at least
_ALIKE, _WORSE = 0.9, 0.3
_WHOLE = 0.95
_CHUNK = 16  # points whose colour models are computed together


class HierarchyGenerator:
    """Segments that hold the point, at increasing scales, with an estimate of their IoU."""

    name = "hierarchy"

    def __init__(self, *, max_side: int = 640) -> None:
        """max_side: a larger image is worked on at this size (pixels). Raises ValueError."""
        if isinstance(max_side, bool) or not isinstance(max_side, int) or max_side < 16:
            raise ValueError(f"max_side is {max_side!r}, not an integer of at least 16")
        self.max_side = max_side

    def fingerprint(self) -> str:
        settings = json.dumps([self.name, _VERSION, self.max_side])
        return hashlib.sha256(settings.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """Some 10 to 20 masks an annotation, by falling confidence."""
        if not annotations:
            return
        height, width = info.size
        ratio = min(1.0, self.max_side / max(height, width))
        small = max(round(height * ratio), 1), max(round(width * ratio), 1)
        scale = small[1] / width, small[0] / height
        points = np.array([(a.x * scale[0], a.y * scale[1]) for a in annotations], np.float32)
        scene = _Scene.of(_shrunk(image, small), points)
        rows = np.arange(height) * small[0] // height
        columns = np.arange(width) * small[1] // width
        for start in range(0, len(annotations), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(annotations)))
            shares = scene.figure.shares(chunk, _RADII)
            for index in chunk:
                masks, confidence, sources = _proposals(scene, index, shares[index - start])
                if small != info.size:
                    masks = masks[:, rows][:, :, columns]
                yield RawProposals(masks, confidence, sources)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the points of one image share. points: (N, 2) xy; rows, columns: their pixels."""

    image: FloatArray
    points: FloatArray
    rows: IntArray
    columns: IntArray
    regions: Regions
    parent: IntArray
    figure: FigureGround
    figures: ranking.RegionFigures
    owner: IntArray
    scratch: IntArray

    @classmethod
    def of(cls, image: ByteArray, points: FloatArray) -> "_Scene":
        height, width = image.shape[:2]
        normal = normalised(image)
        pixels = [point_pixel(x, y, (height, width)) for x, y in points]
        rows = np.array([row for row, _ in pixels], np.int32)
        columns = np.array([column for _, column in pixels], np.int32)
        regions = superpixels(normal, _SCALE, max(_MIN_SIZE, height * width // _DENSITY), _MOST)
        held = np.zeros(len(regions.size), bool)
        held[regions.labels[rows, columns]] = True
        return cls(
            image=normal,
            points=points,
            rows=rows,
            columns=columns,
            regions=regions,
            parent=merge_tree(regions, held, _POWER, _EDGE),
            figure=FigureGround(regions, points),
            figures=ranking.RegionFigures(regions),
            owner=flood.cells(height, width, rows, columns),
            scratch=np.empty(height * width, np.int32),
        )


def normalised(image: ByteArray) -> FloatArray:
    """(H, W, 3) uint8 RGB -> float32 Lab, blurred, scaled to a mean step of _GRADIENT.

    The scale makes one set of thresholds serve dark micrographs and bright photographs.
    """
    lab = gaussian_filter(rgb2lab(image).astype(np.float32), (_BLUR, _BLUR, 0))
    steps = [np.abs(np.diff(lab, axis=axis)).sum(axis=2) for axis in (0, 1)]
    mean = sum(float(s.mean()) for s in steps if s.size) / 2
    scaled: FloatArray = lab * np.float32(_GRADIENT / max(mean, _FLAT))
    return scaled


def _shrunk(image: ByteArray, size: tuple[int, int]) -> ByteArray:
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(resized, np.uint8)


def _proposals(
    scene: _Scene, index: int, shares: FloatArray
) -> tuple[BoolArray, FloatArray, tuple[str, ...]]:
    """Masks (M, H, W), confidence (M,) and tags of one point, best first. shares: (n, S)."""
    members, tags = _regional(scene, index, shares)
    masks, flooded = _flooded(scene, index)
    tags = [*tags, *["hierarchy-flood"] * len(masks)]
    shapes = ranking.joined(scene.figures.shapes(members), flooded)
    iou = ranking.overlaps(shapes, members)
    foreign = _foreign(scene, index, members, masks)
    pixels = scene.owner.size
    confidence = ranking.estimate(shapes, iou, foreign, scene.points[index], pixels)
    kept = ranking.select(confidence, iou, alike=_ALIKE, worse=_WORSE)
    final = np.empty((len(kept), *scene.owner.shape), bool)
    for place, i in enumerate(kept):
        own = i < len(members)
        final[place] = members[i][scene.regions.labels] if own else masks[i - len(members)]
    return final, confidence[kept], tuple(tags[i] for i in kept)


def _regional(scene: _Scene, index: int, shares: FloatArray) -> tuple[BoolArray, list[str]]:
    """(R, n) superpixels of the masks from colour models and from the tree, and their tags."""
    regions = scene.regions
    seed = int(regions.labels[scene.rows[index], scene.columns[index]])
    figures = np.stack([connected(column > 0.5, seed, regions.length) for column in shares.T])
    nodes = chain(scene.parent, seed, len(regions.size))
    areas = nodes @ regions.size
    thin = [0]
    for place in range(1, len(areas)):
        if areas[thin[-1]] <= _STEP * areas[place] and areas[place] <= _WHOLE * scene.owner.size:
            thin.append(place)
    members = np.concatenate([figures, nodes[thin]])
    return members, ["hierarchy-figure"] * len(figures) + ["hierarchy-tree"] * len(thin)


def _flooded(scene: _Scene, index: int) -> tuple[BoolArray, ranking.Shapes]:
    """(F, H, W) masks of the stable flood levels, holes filled, and their figures."""
    level, area = flood.flood(
        scene.image, scene.owner, scene.rows[index], scene.columns[index], scene.scratch
    )
    levels = flood.stable_levels(area, _LEVELS)
    masks = np.zeros((len(levels), *level.shape), bool)
    count = len(scene.regions.size)
    counts = np.empty((len(levels), count), np.float32)
    figures = np.empty((len(levels), 5), np.float32)
    for place, t in enumerate(levels):
        y0, y1, x0, x1 = flood.bounds(level, t)
        inner = flood.fill_holes(level[y0:y1, x0:x1] <= t)
        masks[place, y0:y1, x0:x1] = inner
        counts[place] = np.bincount(scene.regions.labels[y0:y1, x0:x1][inner], minlength=count)
        figures[place] = ranking.measure(scene.image, inner, y0, x0)
    return masks, ranking.Shapes(counts, *figures.T)


def _foreign(scene: _Scene, index: int, members: BoolArray, masks: BoolArray) -> BoolArray:
    """(R + F,) does the mask hold another annotated point's pixel?"""
    elsewhere = (scene.rows != scene.rows[index]) | (scene.columns != scene.columns[index])
    rows, columns = scene.rows[elsewhere], scene.columns[elsewhere]
    regional = members[:, scene.regions.labels[rows, columns]].any(axis=1)
    return np.concatenate([regional, masks[:, rows, columns].any(axis=1)])
