"""Proposals of the hierarchy and of the learned prompter in one bag, ranked by one estimate."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sapnet.proposals.hierarchy import mask_scoring
from sapnet.proposals.hierarchy.generator import HierarchyGenerator
from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.answers import Answer, answers, tags
from sapnet.proposals.prompter.expected import expected_mask
from sapnet.proposals.prompter.network import Prompter
from sapnet.proposals.prompter.ranker import Candidates, Ranker, context, figures
from sapnet.proposals.prompter.scene import Scene, blank
from sapnet.types import ByteArray, FloatArray, ImageInfo, PointAnnotation, RawProposals, Rle

_VERSION = 4  # part of the fingerprint: raise it when anything but the weights changes
_SIDE, _GIVEN = 384, 8  # of the hierarchy: pixels, and masks a point at most
_BAG, _ALIKE = 16, 0.95  # masks a point at most, and the IoU of two of them
_SPREAD = 0.2  # of the estimates, in the choice of the bag
_BETTER = 0.01  # IoU that the candidates' mean is expected to have over the best by estimate


class JoinedGenerator:
    """The masks of each point, of the hierarchy's and the network's, by the IoU to expect."""

    name = "hierarchy+prompter"
    calibrated = True

    most: int = _BAG

    def __init__(self, *, max_side: int = _SIDE, most: int = _BAG) -> None:
        """Load the prompter's weights.

        Args:
            max_side: of the hierarchy.
            most: masks a point, at most.

        Raises:
            WeightsUnavailable: the weights are missing or damaged.
            ValueError: a setting is out of range.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"most is {most!r}, not an integer of at least 1")
        self.most = most
        self.hierarchy = HierarchyGenerator(max_side=max_side, most=_GIVEN)
        self.model = weights.load()
        self.ranker: Ranker = weights.load_ranker()
        self._sha256 = str(weights.card()["sha256"])

    @classmethod
    def of(cls, model: Prompter, ranker: Ranker, sha256: str) -> "JoinedGenerator":
        """A generator with other weights than those of the package.

        Args:
            model: as `weights.ready` makes it.
        """
        made = cls.__new__(cls)
        made.hierarchy = HierarchyGenerator(max_side=_SIDE, most=_GIVEN)
        made.model, made.ranker = model, ranker
        made._sha256 = sha256
        return made

    def fingerprint(self) -> str:
        """sha256 hex of name, version, weights and the hierarchy's fingerprint."""
        parts = [self.name, _VERSION, self._sha256, self.hierarchy.fingerprint(), self.most]
        settings = json.dumps(parts)
        return hashlib.sha256(settings.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """At most `most` masks an annotation, by falling confidence."""
        points = np.array([(a.x, a.y) for a in annotations], np.float32).reshape(-1, 2)
        rles, ious, tables, listed = [], [], [], []
        per_point = enumerate(self.candidates(image, info, annotations))
        for index, (candidates, answer) in per_point:
            tables.append(figures(self.model.judge, answer, candidates, points, index))
            rles.append(candidates.rles)
            ious.append(candidates.iou)
            listed.append(candidates.sources)
        for point in zip(rles, self.ranked(rles, tables), ious, listed, strict=True):
            yield _bag(*point, self.most)

    @torch.inference_mode()
    def ranked(
        self, rles: Sequence[Sequence[Rle]], tables: Sequence[FloatArray]
    ) -> list[FloatArray]:
        """(M,) IoU to expect of each point's candidates.

        Args:
            tables: of `figures`, one a point.
        """
        alone = [self.ranker.alone(torch.from_numpy(t)).numpy() for t in tables]
        out = []
        for index, own in enumerate(tables):
            table = np.concatenate([own, context(rles, alone, index)], 1)
            out.append(self.ranker.together(torch.from_numpy(table)).numpy())
        return out

    def candidates(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[tuple[Candidates, Answer]]:
        """The candidates of each annotation and the network's answer."""
        if not annotations:
            return
        points = np.array([(a.x, a.y) for a in annotations], np.float32)
        given = self.hierarchy.propose(image, info, annotations)
        per_point = zip(given, answers(Scene(self.model, image), points), strict=True)
        for raw, answer in per_point:
            assert not isinstance(raw.masks, tuple)  # the hierarchy draws, it writes no RLE
            count = len(raw.masks)
            sources = [*raw.sources, *tags(len(answer.frames))]
            masks = blank(len(sources), info.size)
            masks[:count] = raw.masks
            answer.paste(masks[count:])
            scores = np.concatenate([raw.confidence, answer.iou().reshape(-1)])
            yield Candidates.of(masks, scores, sources, given=count), answer


def _bag(
    rles: list[Rle], confidence: FloatArray, iou: FloatArray, sources: list[str], most: int
) -> RawProposals:
    """The candidates of one point and their mean, cut down to the size of a bag."""
    mean = expected_mask(rles, confidence)
    if mean is not None:
        others = coco_mask.iou([mean], rles, [0] * len(rles))[0]
        iou = np.block([[iou, others[:, None]], [others, 1.0]]).astype(np.float32)
        rles, sources = [*rles, mean], [*sources, "mean"]
        highest = min(float(confidence.max()) + _BETTER, 1.0)
        confidence = np.append(confidence, np.float32(highest))
    kept = mask_scoring.select(confidence, iou, most=most, alike=_ALIKE, spread=_SPREAD)
    return RawProposals(
        tuple(rles[i] for i in kept), confidence[kept], tuple(sources[i] for i in kept)
    )
