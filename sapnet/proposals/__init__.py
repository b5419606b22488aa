"""Proposals: one point in, a bag of candidate masks out. Imports torch only when SAM is built."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from sapnet.errors import InvalidConfig
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, PointSet, RawProposals

KINDS = ("hierarchy", "sam", "given")


class ProposalGenerator(Protocol):
    """What makes proposals. `bags.make_bags` turns them into bags."""

    name: str

    def fingerprint(self) -> str:
        """sha256 hex of the name and of every setting that changes what is proposed."""
        ...

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """One RawProposals per annotation, in order. image: (H, W, 3) uint8 RGB."""
        ...


def build_generator(
    settings: Mapping[str, Any], points: PointSet | None = None
) -> ProposalGenerator:
    """`{"kind": "hierarchy" | "sam" | "given", ...}` -> a generator; the rest are its keywords.

    points: the data set, against which `given` masks are checked. Raises InvalidConfig for an
    unknown kind, keyword or value, InvalidDataset for bad given masks, WeightsUnavailable for SAM
    without a checkpoint.
    """
    keywords = dict(settings)
    kind = keywords.pop("kind", None)
    build = _generator_class(kind)
    known = inspect.signature(build).parameters
    for keyword in keywords:
        if keyword not in known:
            raise InvalidConfig(
                f"proposals kind {kind!r} knows no {keyword!r}, only {', '.join(known)}"
            )
    if kind == "given":
        keywords.setdefault("points", points)
    try:
        return build(**keywords)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"proposals kind {kind!r}: {error}") from error


def _generator_class(kind: object) -> Callable[..., ProposalGenerator]:
    """Imports only what is asked for: SAM needs torch, the others do not."""
    if kind == "hierarchy":
        from sapnet.proposals.hierarchy.generator import HierarchyGenerator

        return HierarchyGenerator
    if kind == "sam":
        from sapnet.proposals.sam.generator import SamGenerator

        return SamGenerator
    if kind == "given":
        from sapnet.proposals.given import GivenGenerator

        return GivenGenerator
    raise InvalidConfig(f"proposals kind {kind!r} is not one of {', '.join(KINDS)}")
