"""What the settings say of the kinds of generators is what the generators say of themselves."""

import pytest

from sapnet.config.methods import CALIBRATED_PROPOSALS
from sapnet.proposals import KINDS, build_generator
from sapnet.proposals.base import ProposalGenerator
from sapnet.types import PointSet

SETTINGS = {"given": {"document": {}}}
NEEDS_WEIGHTS = {"sam", "sam2"}
EMPTY = PointSet((), (), ())


def test_known_kinds() -> None:
    assert set(KINDS) >= CALIBRATED_PROPOSALS


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NEEDS_WEIGHTS])
def test_calibration_of(kind: str) -> None:
    generator: ProposalGenerator = build_generator({"kind": kind, **SETTINGS.get(kind, {})}, EMPTY)
    assert generator.calibrated is (kind in CALIBRATED_PROPOSALS)


def test_calibration_of_sam() -> None:
    from sapnet.proposals.sam.generator import SamGenerator
    from sapnet.proposals.sam.sam2 import Sam2Generator

    assert SamGenerator.calibrated is ("sam" in CALIBRATED_PROPOSALS)
    assert Sam2Generator.calibrated is ("sam2" in CALIBRATED_PROPOSALS)
