"""Proposals by the learned prompter alone."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.answers import answers, tags
from sapnet.proposals.prompter.network import Prompter
from sapnet.proposals.prompter.scene import Scene, blank
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, RawProposals

VERSION = 2  # part of the fingerprint: raise it when anything but the weights changes


class PrompterGenerator:
    """Masks drawn by the network in windows round each point, with its estimates of their IoU."""

    name = "prompter"
    calibrated = True

    def __init__(self) -> None:
        """Raises WeightsUnavailable."""
        self.model = weights.load()
        self._sha256 = str(weights.card()["sha256"])

    @classmethod
    def of(cls, model: Prompter, sha256: str) -> "PrompterGenerator":
        """A generator with other weights than those of the package.

        Args:
            model: as `weights.ready` makes it.
        """
        made = cls.__new__(cls)
        made.model, made._sha256 = model, sha256
        return made

    def fingerprint(self) -> str:
        """sha256 hex of the generator's name and version and of the weights."""
        settings = json.dumps([self.name, VERSION, self._sha256])
        return hashlib.sha256(settings.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """At most 15 masks an annotation."""
        if not annotations:
            return
        points = np.array([(a.x, a.y) for a in annotations], np.float32)
        for answer in answers(Scene(self.model, image), points):
            sources = tuple(tags(len(answer.frames)))
            masks = blank(len(sources), info.size)
            answer.paste(masks)
            yield RawProposals(masks, answer.iou().reshape(-1), sources)
