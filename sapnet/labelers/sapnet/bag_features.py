"""What the bags of an image tell by themselves, and the bags of a batch as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sapnet.config.schema import MilConfig
from sapnet.data.samples import ImageRecord, Sample
from sapnet.labelers.same_class_points import point_containment, same_class_points
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.point_distance import distance_score, foreign_distance, mean_spacing
from sapnet.types import Bag, ProposalScores


@dataclass(frozen=True)
class BagFeatures:
    """Of the bags of one image, a (M,) array a bag, see `Bags`."""

    distance: tuple[np.ndarray, ...]
    foreign: tuple[np.ndarray, ...]
    medoid: tuple[np.ndarray, ...]
    size_rank: tuple[np.ndarray, ...]


def bag_features(record: ImageRecord, config: MilConfig) -> BagFeatures:
    """Compute them from the points and the proposals alone."""
    points = np.array([(a.x, a.y) for a in record.annotations], dtype=np.float64).reshape(-1, 2)
    spacing = mean_spacing(points)
    distance, foreign, medoid = [], [], []
    for annotation, bag, point in zip(record.annotations, record.bags, points, strict=True):
        rivals = same_class_points(annotation, record.annotations)
        xy = np.array([(r.x, r.y) for r in rivals], dtype=np.float64).reshape(-1, 2)
        held, holds = point_containment(bag, annotation, record.annotations)
        weight = foreign_distance(point, xy, holds, spacing)
        distance.append(distance_score(weight, config.distance_exponent))
        foreign.append(held)
        overlaps = bag.overlaps.astype(np.float64)  # so that the sum knows no order
        others = overlaps.sum(axis=1) - np.diag(overlaps)
        medoid.append((others / max(len(bag) - 1, 1)).astype(np.float32))
    ranks = tuple(size_rank(bag) for bag in record.bags)
    return BagFeatures(tuple(distance), tuple(foreign), tuple(medoid), ranks)


def size_rank(bag: Bag) -> np.ndarray:
    """The place of each mask by falling area, (M,) int64; masks of one area by their own text."""
    areas = coco_mask.area(list(bag.masks))
    order = sorted(range(len(bag)), key=lambda m: (-int(areas[m]), bag.masks[m]["counts"]))
    return np.argsort(order)


class BagCollator:
    """Joins the bags of a batch's images. What they tell by themselves is computed once an image.

    judgements: the teacher's, by annotation id; none where it has not been asked.
    """

    def __init__(
        self, config: MilConfig, judgements: Mapping[int, ProposalScores] | None = None
    ) -> None:
        self.config = config
        self.judgements: Mapping[int, ProposalScores] = judgements or {}
        self._features: WeakKeyDictionary[ImageRecord, BagFeatures] = WeakKeyDictionary()

    def features(self, record: ImageRecord) -> BagFeatures:
        """What the image's bags tell."""
        found = self._features.get(record)
        if found is None:
            found = self._features[record] = bag_features(record, self.config)
        return found

    def __call__(self, samples: Sequence[Sample]) -> Bags:
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
            bag, of_bags = sample.record.bags[n], self.features(sample.record)
            used = slice(0, len(bag))
            boxes[row, used] = sample.boxes(bag)
            valid[row, used] = True
            distance[row, used] = of_bags.distance[n]
            foreign[row, used] = of_bags.foreign[n]
            medoid[row, used] = of_bags.medoid[n]
            ranks[row, used] = of_bags.size_rank[n]
            confidence[row, used] = bag.confidence
            if self.judgements:
                judgement = self.judgements[sample.record.annotations[n].id]
                contrast[row, used] = judgement.contrast
                overlap[row, used] = judgement.overlap
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
