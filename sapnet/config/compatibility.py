"""Which settings shape a segmenter, so that a training may go on from another's weights. Imports no
torch: the API asks it before it accepts the job."""

from collections.abc import Mapping
from typing import Any

from sapnet.config.schema import Config

ARCHITECTURE = {
    "backbone": ("name", "fpn_channels", "fpn_norm", "p6"),
    "solo": ("channels", "stacked_convs", "mask_channels", "mask_feature_channels"),
}
"""The settings that say which weights a segmenter has, and of what shapes."""


def other_architecture(config: Config, model: Mapping[str, Any]) -> list[str]:
    """In words, where a model's segmenter is of another shape; none where its weights fit.

    model: what `Config.to_dict` wrote, perhaps through JSON.
    """
    mine = config.to_dict()
    return [
        f"{stage}.{name} is {mine[stage][name]!r}, the model's {theirs!r}"
        for stage, names in ARCHITECTURE.items()
        for name in names
        if (theirs := (model.get(stage) or {}).get(name)) != mine[stage][name]
    ]
