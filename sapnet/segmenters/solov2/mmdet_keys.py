"""mmdetection's SOLOv2 checkpoints, in and out: the two key layouts, side by side (ResNets only).

Values are the same tensors under both names. mmdetection's layout is that of its `SOLOv2` model
with `ResNet`, `FPN` and `SOLOV2Head` (version 3, and 2 from 2.25 on).
"""

import re
from collections.abc import Mapping

from torch import Tensor

from sapnet.segmenters.backbones.weights import load_exactly
from sapnet.segmenters.solov2.model import SoloV2

# (ours, mmdetection's): # is a number, * the rest of a key; the first pattern that fits decides
_TABLE = (
    ("backbone.body.*", "backbone.*"),
    ("backbone.fpn.*", "neck.*"),
    ("head.mask_features.levels.#.#.*", "mask_head.mask_feature_head.convs_all_levels.#.conv#.*"),
    ("head.mask_features.predict.*", "mask_head.mask_feature_head.conv_pred.*"),
    ("head.*", "mask_head.*"),
)


def to_mmdet_key(key: str) -> str:
    """Our name of a tensor -> mmdetection's. ValueError where it has none."""
    return _translate(key, list(_TABLE))


def from_mmdet_key(key: str) -> str:
    """Name in mmdetection of a tensor -> ours. ValueError where there is none."""
    return _translate(key, [(mmdet, own) for own, mmdet in _TABLE])


def load_mmdet_state_dict(model: SoloV2, state: Mapping[str, Tensor]) -> None:
    """Load the `state_dict` of an mmdetection SOLOv2 checkpoint.

    The model must have been built with the checkpoint's depth, number of classes, FPN norm and kind
    of P6, and `pretrained=True` (its batch norms are frozen there too).

    Raises:
        WeightsUnavailable: keys are missing, unknown or of another shape. It names them, as ours.
        ValueError: a key that belongs to no SOLOv2.
    """
    ours = {from_mmdet_key(key): value for key, value in state.items()}
    load_exactly(model, ours, "mmdetection's state dict")


def to_mmdet_state_dict(model: SoloV2) -> dict[str, Tensor]:
    """The model's tensors under mmdetection's names, complete for its strict loading."""
    return {to_mmdet_key(key): value for key, value in model.state_dict().items()}


def _translate(key: str, table: list[tuple[str, str]]) -> str:
    if ".features." in key or ".net." in key:
        raise ValueError(f"mmdetection has no SOLOv2 on MobileNetV2 or EfficientNet-Lite0: {key}")
    for source, target in table:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
        if match := re.fullmatch(pattern, key):
            for part in match.groups():
                target = re.sub(r"[#*]", part, target, count=1)
            return target
    raise ValueError(f"no such key in the other layout: {key}")
