"""Proposals without any weights: the embedded default.

Three sources for each point, all on one superpixel map of the image: figure against ground at
nine scales (figure.py), the growing regions of a merging tree (regions.py), and the stable levels
of two floods of the point's own cell (flood.py). The other annotated points split them all.
An estimate of the masks' IoU ranks them, and the sixteen are taken that promise the best of a bag
(ranking.py).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from sapnet.proposals.bags import point_pixel
from sapnet.proposals.hierarchy import flood_fill
from sapnet.proposals.hierarchy import mask_scoring as ranking
from sapnet.proposals.hierarchy.figure_ground import FigureGround, connected
from sapnet.proposals.hierarchy.superpixels import IntArray, Regions, chain, merge_tree, superpixels
from sapnet.types import (
    BoolArray,
    ByteArray,
    FloatArray,
    ImageInfo,
    PointAnnotation,
    RawProposals,
)

_VERSION = 2  # part of the fingerprint: raise it when any constant here or below changes
_BLUR = 0.8  # pixels
_GRADIENT = 4.0  # the mean step between neighbours after normalisation
_FLAT = 0.2  # a mean step below this is noise, and is not raised further
_SCALE = 20.0  # of Felzenszwalb's criterion, on normalised colours
_MIN_SIZE, _DENSITY, _MOST = 12, 15000, 2600  # superpixels: least size, pixels / size, how many
_POWER, _EDGE = 0.4, 8.0  # of the merging cost
_RADII = tuple(4.0 * 1.6**k for k in range(9))
_LEVELS = 10  # stable levels of a flood, beside Otsu's
_STEP = 0.9  # areas of two nodes of the tree's chain differ by this ratio at least
_BAG, _ALIKE = 16, 0.95  # masks a point at most, and the IoU of two of them
_WHOLE = 0.95
_CHUNK = 16  # points whose colour models are computed together


class HierarchyGenerator:
    """Segments that hold the point, at increasing scales, with an estimate of their IoU."""

    name = "hierarchy"
    calibrated = True

    def __init__(self, *, max_side: int = 640, most: int = _BAG) -> None:
        """Check the setting.

        Args:
            max_side: a larger image is worked on at this size, in pixels.
            most: masks a point, at most.

        Raises:
            ValueError: one is no integer, or too small: below 16, below 1.
        """
        if isinstance(max_side, bool) or not isinstance(max_side, int) or max_side < 16:
            raise ValueError(f"max_side is {max_side!r}, not an integer of at least 16")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"most is {most!r}, not an integer of at least 1")
        self.max_side, self.most = max_side, most

    def fingerprint(self) -> str:
        """sha256 hex of the generator's name, version and settings."""
        settings = [self.name, _VERSION, self.max_side]
        if self.most != _BAG:  # those of before keep theirs
            settings.append(self.most)
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """At most `most` masks an annotation, by falling confidence."""
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
                masks, confidence, sources = _proposals(
                    scene, index, shares[index - start], self.most
                )
                if small != info.size:
                    by_column = masks.transpose(0, 2, 1)[:, columns][:, :, rows]
                    masks = by_column.transpose(0, 2, 1)
                yield RawProposals(masks, confidence, sources)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the points of one image share.

    Attributes:
        points: (N, 2) xy; rows, columns: their pixels.
        labels_by_column: (W, H), the superpixel of each pixel.
    """

    image: FloatArray
    points: FloatArray
    rows: IntArray
    columns: IntArray
    regions: Regions
    labels_by_column: IntArray
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
        with_point = np.zeros(len(regions.size), bool)
        with_point[regions.labels[rows, columns]] = True
        return cls(
            image=normal,
            points=points,
            rows=rows,
            columns=columns,
            regions=regions,
            labels_by_column=np.ascontiguousarray(regions.labels.T),
            parent=merge_tree(regions, with_point, _POWER, _EDGE),
            figure=FigureGround(regions, points),
            figures=ranking.RegionFigures(regions),
            owner=flood_fill.cells(height, width, rows, columns),
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
    scene: _Scene, index: int, shares: FloatArray, most: int
) -> tuple[BoolArray, FloatArray, tuple[str, ...]]:
    """Masks (M, H, W), confidence (M,) and tags of one point, best first. shares: (n, S).

    In memory the masks lie column by column, as RLEs are read.
    """
    members, tags = _regional(scene, index, shares)
    nests, flooded = _flooded(scene, index)
    tags = [*tags, *["hierarchy-flood"] * sum(nest.depth for nest in nests)]
    shapes = ranking.joined(scene.figures.shapes(members), *flooded)
    iou = ranking.overlaps(shapes, members, nests)
    contains_other = _contains_other_point(scene, index, members, nests)
    pixels = scene.owner.size
    confidence = ranking.estimate(shapes, iou, contains_other, scene.points[index], pixels)
    kept = ranking.select(confidence, iou, most=most, alike=_ALIKE)
    first = [np.ascontiguousarray(nest.first.T) for nest in nests]
    nested = [
        (by_column, step)
        for by_column, nest in zip(first, nests, strict=True)
        for step in range(nest.depth)
    ]
    final = np.empty((len(kept), *scene.owner.shape[::-1]), bool)
    for place, i in enumerate(kept):
        if i < len(members):
            np.take(members[i], scene.labels_by_column, out=final[place])
        else:
            by_column, step = nested[i - len(members)]
            np.less_equal(by_column, step, out=final[place])
    return final.transpose(0, 2, 1), confidence[kept], tuple(tags[i] for i in kept)


def _regional(scene: _Scene, index: int, shares: FloatArray) -> tuple[BoolArray, list[str]]:
    """(R, n) superpixels of the masks from colour models and from the tree, and their tags."""
    regions = scene.regions
    seed = int(regions.labels[scene.rows[index], scene.columns[index]])
    figures = np.stack([connected(column > 0.5, seed, regions.length) for column in shares.T])
    figures = figures[figures @ regions.size <= _WHOLE * scene.owner.size]
    nodes = chain(scene.parent, seed, len(regions.size))
    areas = nodes @ regions.size
    thin = [0]
    for place in range(1, len(areas)):
        if areas[thin[-1]] <= _STEP * areas[place] and areas[place] <= _WHOLE * scene.owner.size:
            thin.append(place)
    members = np.concatenate([figures, nodes[thin]])
    return members, ["hierarchy-figure"] * len(figures) + ["hierarchy-tree"] * len(thin)


def _flooded(scene: _Scene, index: int) -> tuple[list[ranking.Nest], list[ranking.Shapes]]:
    """The stable levels of both floods, holes filled, as nests, and their figures.

    The colour flood's are grown by a pixel: outlines drawn by hand lie a little outside.
    """
    row, column = scene.rows[index], scene.columns[index]
    distance, towards = flood_fill.unlike(scene.image, scene.owner, row, column)
    cell = scene.owner == scene.owner[row, column]
    pairs = [_nest(scene, index, distance, cell), _nest(scene, index, towards, None)]
    return [nest for nest, _ in pairs], [shapes for _, shapes in pairs]


def _nest(
    scene: _Scene, index: int, cost: FloatArray, cell: BoolArray | None
) -> tuple[ranking.Nest, ranking.Shapes]:
    """Masks of a flood's stable levels. cell: (H, W), they are grown by a pixel within it."""
    level, area = flood_fill.flood_levels(
        cost, scene.owner, scene.rows[index], scene.columns[index], scene.scratch
    )
    levels = sorted(flood_fill.stable_levels(area, _LEVELS))
    boxes = flood_fill.bounds(level)
    height, width = level.shape
    first = np.full((height, width), len(levels), np.int32)
    figures = np.empty((len(levels), 5), np.float32)
    for step in reversed(range(len(levels))):
        y0, y1, x0, x1 = boxes[levels[step]]
        if cell is not None:
            y0, y1, x0, x1 = max(y0 - 1, 0), min(y1 + 1, height), max(x0 - 1, 0), min(x1 + 1, width)
        mask = flood_fill.fill_holes(level[y0:y1, x0:x1] <= levels[step])
        if cell is not None:
            mask = flood_fill.grown(mask, cell[y0:y1, x0:x1])
        first[y0:y1, x0:x1][mask] = step
        figures[step] = ranking.measure(scene.image, mask, y0, x0)
    nest = ranking.Nest(first, len(levels))
    count = len(scene.regions.size)
    counts = ranking.tally(first, scene.regions.labels, nest.depth + 1, count)
    return nest, ranking.Shapes(counts[:-1].cumsum(axis=0), *figures.T)


def _contains_other_point(
    scene: _Scene, index: int, members: BoolArray, nests: list[ranking.Nest]
) -> BoolArray:
    """(M,) does the mask contain another annotated point's pixel? In the order of `overlaps`."""
    elsewhere = (scene.rows != scene.rows[index]) | (scene.columns != scene.columns[index])
    rows, columns = scene.rows[elsewhere], scene.columns[elsewhere]
    regional = members[:, scene.regions.labels[rows, columns]].any(axis=1)
    earliest = [nest.first[rows, columns].min(initial=nest.depth) for nest in nests]
    nested = [np.arange(nest.depth) >= step for nest, step in zip(nests, earliest, strict=True)]
    return np.concatenate([regional, *nested])
