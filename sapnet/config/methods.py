"""The settings that each method switches on or off in the one pipeline."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from sapnet.config.schema import Config


def sam_top1(config: Config) -> Config:
    """The generator's most confident proposal; nothing is learned."""
    return _by_rule(config, "confidence")


def consensus(config: Config) -> Config:
    """The proposal that the rest of its bag agrees with most; nothing is learned."""
    return _by_rule(config, "consensus")


def box_rule(config: Config) -> Config:
    """The proposal that fits the object's box best, else as consensus; nothing is learned."""
    return _by_rule(config, "box")


def mil(config: Config) -> Config:
    """Multiple-instance learning alone: PSM without distance guidance, refinement or priors."""
    selection = replace(
        config.mil,
        point_distance=False,
        exclude_foreign_points=False,
        refinement=False,
        positives=False,
        box_mining=False,
        completeness=False,
        prior_medoid=0.0,
        prior_confidence=0.0,
    )
    output = replace(config.output, segmenter_vote=0.0)
    return _unrefined(replace(config, mil=selection, output=output))


def sapnet(config: Config) -> Config:
    """SAPNet: PSM, PDG, PNPG, SRM and BMS, without SASD and MLAR."""
    return _unrefined(replace(config, mil=replace(config.mil, completeness=False)))


def sapnet_plus_plus(config: Config) -> Config:
    """SAPNet++: all that the preset has."""
    return config


def p2seg(config: Config) -> Config:
    """P2Seg: masks of a semantic and an instance map that teach each other.

    Whatever of them holds its point is delivered, since they need not look like a proposal.
    """
    return replace(config, output=replace(config.output, agreement=0.0, drawn_agreement=0.0))


def sim(config: Config) -> Config:
    """SIM: masks learned from boxes, the objects' own or those of the picks."""
    return replace(config, output=replace(config.output, consent=True, drawn_agreement=0.0))


METHODS: dict[str, Callable[[Config], Config]] = {
    "sam-top1": sam_top1,
    "consensus": consensus,
    "box-rule": box_rule,
    "mil": mil,
    "sapnet": sapnet,
    "sapnet++": sapnet_plus_plus,
    "p2seg": p2seg,
    "sim": sim,
}


CALIBRATED_PROPOSALS = frozenset({"hierarchy", "prompter", "hierarchy+prompter"})
"""Kinds of generators whose confidence estimates IoU (`ProposalGenerator.calibrated`)."""
LEARNED_PROPOSALS = frozenset({"prompter", "hierarchy+prompter"})
"""Those among them whose estimate was learned from true masks."""


def for_uncalibrated_proposals(config: Config) -> Config:
    """A preset with a teacher, for proposals whose confidence does not estimate IoU.

    Nor do their masks follow the image's own edges. The teacher's contrast then tells more than
    its overlap, and a mask is refined once, where its bag agrees, since many are better than
    refinement could make them.
    """
    return replace(
        config,
        mil=replace(config.mil, prior_contrast=5.0, prior_overlap=0.0),
        refine=replace(config.refine, polish=0),
        output=replace(config.output, consent=True),
    )


def for_learned_proposals(config: Config) -> Config:
    """A preset with a teacher, for proposals whose confidence was learned from true masks.

    Nothing that is learned from the bags alone tells as much of photographs, so there is no teacher
    and the agreement of the bag does not count again. What the segmenter learns does count, where
    it has learned to draw the objects: there it votes, and there a mask is refined, if its bag
    agrees. Of photographs, most are better than refinement could make them.
    """
    return replace(
        config,
        mil=replace(config.mil, prior_medoid=0.0, prior_confidence=4.0, prior_overlap=0.0),
        teacher=replace(config.teacher, enabled=False),
        output=replace(config.output, segmenter_vote=16.0, consent=True, drawn_agreement=0.4),
    )


def _by_rule(config: Config, rule: Literal["confidence", "consensus", "box"]) -> Config:
    return _unrefined(replace(config, mil=replace(config.mil, rule=rule)))


def _unrefined(config: Config) -> Config:
    return replace(
        config,
        teacher=replace(config.teacher, enabled=False),
        refine=replace(config.refine, enabled=False),
    )
