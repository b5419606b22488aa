"""Which labeler a configuration asks for."""

from collections.abc import Callable

from sapnet.config.schema import Config
from sapnet.labelers.base import Labeler

LabelerBuilder = Callable[[Config, int, int, tuple[int, ...]], Labeler]
"""(config, number of classes, channels and strides of the pyramid) -> labeler."""


def build_labeler(
    config: Config, num_classes: int, in_channels: int, strides: tuple[int, ...]
) -> Labeler:
    """A labeler for K classes on a pyramid; what is random comes from torch's generator."""
    match config.method, config.mil.rule:
        case "p2seg", _:
            from sapnet.labelers.p2seg.labeler import P2SegLabeler

            return P2SegLabeler(
                config, num_classes=num_classes, in_channels=in_channels, strides=strides
            )
        case "sim", _:
            from sapnet.labelers.sim.labeler import SimLabeler

            return SimLabeler(
                config, num_classes=num_classes, in_channels=in_channels, strides=strides
            )
        case _, "learned":
            from sapnet.labelers.sapnet.labeler import SapnetLabeler

            return SapnetLabeler(
                config, num_classes=num_classes, in_channels=in_channels, strides=strides
            )
        case _:
            from sapnet.labelers.rules import RuleLabeler

            return RuleLabeler(config)
