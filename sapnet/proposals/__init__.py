"""Proposals: one point in, a bag of candidate masks out. Imports torch only where it is needed."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sapnet.errors import InvalidConfig
from sapnet.proposals.base import ProposalGenerator
from sapnet.types import PointSet

KINDS = ("hierarchy", "prompter", "hierarchy+prompter", "sam", "sam2", "given")


def build_generator(
    settings: Mapping[str, Any], points: PointSet | None = None
) -> ProposalGenerator:
    """`{"kind": one of KINDS, ...}` -> a generator; the rest are its keywords.

    Args:
        points: the dataset, against which `given` masks are checked.

    Raises:
        InvalidConfig: the kind, a keyword or a value is unknown.
        InvalidDataset: given masks do not fit.
        WeightsUnavailable: SAM's checkpoint or the prompter's weights are missing or damaged.
    """
    keywords = dict(settings)
    kind = keywords.pop("kind", None)
    build = _generator_class(kind)
    accepted = inspect.signature(build).parameters
    for keyword in keywords:
        if keyword not in accepted:
            raise InvalidConfig(
                f"proposals kind {kind!r} knows no {keyword!r}, only {', '.join(accepted)}"
            )
    if kind == "given":
        keywords.setdefault("points", points)
    try:
        return build(**keywords)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"proposals kind {kind!r}: {error}") from error


def _generator_class(kind: object) -> Callable[..., ProposalGenerator]:
    """Imports only what is asked for: SAM and the prompter need torch, the others do not."""
    match kind:
        case "hierarchy":
            from sapnet.proposals.hierarchy.generator import HierarchyGenerator

            return HierarchyGenerator
        case "prompter":
            from sapnet.proposals.prompter.generator import PrompterGenerator

            return PrompterGenerator
        case "hierarchy+prompter":
            from sapnet.proposals.prompter.joined import JoinedGenerator

            return JoinedGenerator
        case "sam":
            from sapnet.proposals.sam.generator import SamGenerator

            return SamGenerator
        case "sam2":
            from sapnet.proposals.sam.sam2 import Sam2Generator

            return Sam2Generator
        case "given":
            from sapnet.proposals.given import GivenGenerator

            return GivenGenerator
        case _:
            raise InvalidConfig(f"proposals kind {kind!r} is not one of {', '.join(KINDS)}")
