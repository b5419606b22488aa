"""Features of the bags of an image, before any learning, and the bags of a batch as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sapnet.config.schema import MilConfig
from sapnet.data.box_masks import box_mask
from sapnet.data.masks import merge, tight_boxes
from sapnet.data.samples import ImageRecord, Sample
from sapnet.labelers.same_class_points import point_containment, same_class_points
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.point_distance import contained_distance, distance_score, mean_spacing
from sapnet.types import Bag, Box, ProposalScores


@dataclass(frozen=True)
class BagFeatures:
    """Features of the bags of one image, a (M,) array a bag; see `Bags`."""

    distance: tuple[np.ndarray, ...]
    contains_other_point: tuple[np.ndarray, ...]
    medoid: tuple[np.ndarray, ...]
    size_rank: tuple[np.ndarray, ...]
    box_fit: tuple[np.ndarray, ...]


def bag_features(record: ImageRecord, config: MilConfig) -> BagFeatures:
    """Compute them from the points and the proposals alone."""
    points = np.array([(a.x, a.y) for a in record.annotations], dtype=np.float64).reshape(-1, 2)
    spacing = mean_spacing(points)
    distance, contains_other_point, medoid = [], [], []
    for annotation, bag, point in zip(record.annotations, record.bags, points, strict=True):
        siblings = same_class_points(annotation, record.annotations)
        xy = np.array([(s.x, s.y) for s in siblings], dtype=np.float64).reshape(-1, 2)
        contains_any, contains = point_containment(bag, annotation, record.annotations)
        weight = contained_distance(point, xy, contains, spacing)
        score = distance_score(weight, config.distance_exponent)
        distance.append(score if annotation.guide is None else np.ones_like(score))
        contains_other_point.append(contains_any)
        overlaps = bag.overlaps.astype(np.float64)  # so that the sum depends on no order
        others = overlaps.sum(axis=1) - np.diag(overlaps)
        medoid.append((others / max(len(bag) - 1, 1)).astype(np.float32))
    ranks = tuple(size_rank(bag) for bag in record.bags)
    pairs = zip(record.bags, record.annotations, strict=True)
    fits = tuple(box_fit(bag, annotation.guide, config) for bag, annotation in pairs)
    return BagFeatures(tuple(distance), tuple(contains_other_point), tuple(medoid), ranks, fits)


def box_fit(bag: Bag, box: Box | None, config: MilConfig) -> np.ndarray:
    """The log prior of each mask by its object's box, (M,) float32; 0 without a box.

    It is `prior_tight` times the log of the share of the box that the mask's box covers, and
    `prior_inside` times that of the share of the mask that is in the box.
    """
    if box is None:
        return np.zeros(len(bag), np.float32)
    masks = list(bag.masks)
    height, width = masks[0]["size"]
    inside = [merge([mask, box_mask(box, (height, width))], intersect=True) for mask in masks]
    shares = coco_mask.area(inside) / coco_mask.area(masks)
    own = tight_boxes(inside).astype(np.float64)
    covered = (own[:, 2:] - own[:, :2]).prod(axis=1) / ((box[2] - box[0]) * (box[3] - box[1]))
    tight, within = (np.log(np.clip(share, 1e-3, 1)) for share in (covered, shares))
    fit = config.prior_tight * tight + config.prior_inside * within
    return fit.astype(np.float32)


def size_rank(bag: Bag) -> np.ndarray:
    """The place of each mask by falling area, (M,) int64; masks of one area by their own text."""
    areas = coco_mask.area(list(bag.masks))
    order = sorted(range(len(bag)), key=lambda m: (-int(areas[m]), bag.masks[m]["counts"]))
    return np.argsort(order)


class BagCollator:
    """Joins the bags of a batch's images; their features are computed once an image.

    Attributes:
        proposal_scores: the teacher's, by annotation id; empty without a teacher.
    """

    def __init__(
        self, config: MilConfig, proposal_scores: Mapping[int, ProposalScores] | None = None
    ) -> None:
        self.config = config
        self.proposal_scores: Mapping[int, ProposalScores] = proposal_scores or {}
        self._features: WeakKeyDictionary[ImageRecord, BagFeatures] = WeakKeyDictionary()

    def features(self, record: ImageRecord) -> BagFeatures:
        """The features of the image's bags, computed at most once."""
        features = self._features.get(record)
        if features is None:
            features = self._features[record] = bag_features(record, self.config)
        return features

    def __call__(self, samples: Sequence[Sample]) -> Bags:
        """The bags of a batch in the input's pixels."""
        rows = [(i, s, n) for i, s in enumerate(samples) for n in range(len(s.record.bags))]
        longest = max((len(s.record.bags[n]) for _, s, n in rows), default=1)
        shape = (len(rows), longest)
        boxes = np.zeros((*shape, 4), dtype=np.float32)
        valid, contains_other_point = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        distance = np.ones(shape, dtype=np.float32)
        medoid, confidence = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        contrast, overlap = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
        ranks, fits = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for row, (_, sample, n) in enumerate(rows):
            bag, of_bags = sample.record.bags[n], self.features(sample.record)
            used = slice(0, len(bag))
            boxes[row, used] = sample.boxes(bag)
            valid[row, used] = True
            distance[row, used] = of_bags.distance[n]
            contains_other_point[row, used] = of_bags.contains_other_point[n]
            medoid[row, used] = of_bags.medoid[n]
            ranks[row, used] = of_bags.size_rank[n]
            fits[row, used] = of_bags.box_fit[n]
            confidence[row, used] = bag.confidence
            if self.proposal_scores:
                scores = self.proposal_scores[sample.record.annotations[n].id]
                contrast[row, used] = scores.contrast
                overlap[row, used] = scores.overlap
        labels = [sample.record.labels[n] for _, sample, n in rows]
        guides = [sample.record.annotations[n].guide for _, sample, n in rows]
        boxed = [box is not None for box in guides]
        own = np.zeros((len(rows), 4), dtype=np.float32)
        for row, ((_, sample, _), box) in enumerate(zip(rows, guides, strict=True)):
            if box is not None:
                own[row] = sample.placed(np.array([box]))[0]
        return Bags(
            boxes=torch.from_numpy(boxes),
            valid=torch.from_numpy(valid),
            labels=torch.tensor(labels, dtype=torch.int64),
            image=torch.tensor([i for i, _, _ in rows], dtype=torch.int64),
            distance=torch.from_numpy(distance),
            contains_other_point=torch.from_numpy(contains_other_point),
            medoid=torch.from_numpy(medoid),
            confidence=torch.from_numpy(confidence),
            contrast=torch.from_numpy(contrast),
            overlap=torch.from_numpy(overlap),
            size_rank=torch.from_numpy(ranks),
            box_fit=torch.from_numpy(fits),
            box=torch.from_numpy(own),
            boxed=torch.tensor(boxed, dtype=torch.bool),
        )
