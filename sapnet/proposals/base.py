"""Which masks could a point mean? The interface of every proposal generator."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from sapnet.types import ByteArray, ImageInfo, PointAnnotation, RawProposals


class ProposalGenerator(Protocol):
    """Makes the proposals of each point of an image; `bags.make_bags` turns them into bags.

    The same settings and the same image give the same proposals, in any process: bags are stored
    under the fingerprint and made once.

    One that may be asked by several threads, an image each, says so by an attribute
    `images_at_once`, of at least 2.
    """

    @property
    def name(self) -> str:
        """The generator's name, for people and for the tags of its proposals."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether confidence estimates the IoU with the object, and masks follow image edges.

        Where not, presets weigh the teacher otherwise (`config.methods`).
        """
        ...

    def fingerprint(self) -> str:
        """sha256 hex of the name and of every setting that changes what is proposed."""
        ...

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """One RawProposals per annotation, in order.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        ...
