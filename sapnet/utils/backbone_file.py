"""Which backbone a file of weights is of, by the names of its tensors. Imports no torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sapnet.utils.restricted_pickle import load_shapes

RESNETS = {
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
}
"""By the blocks of the third stage, and whether a block is a bottleneck."""
_MARKS = {
    "features.0.0.weight": "mobilenet_v2",
    "stages.0.0.depthwise.1.weight": "efficientnet_lite0",
    "_blocks.0._depthwise_conv.weight": "efficientnet_lite0",
}
"""The end of a tensor's name that only one body has."""
_RESNET, _STAGE = "layer1.0.conv1.weight", "layer3."


def body_of_file(path: Path) -> str | None:
    """The body of a backbone's state dict, or of a model in whose file there is one.

    None where the file cannot be read, or is of none that is known.
    """
    try:
        document = load_shapes(path)
    except (OSError, ValueError):
        return None
    state = document.get("state_dict", document) if isinstance(document, Mapping) else None
    return body_of_names(map(str, state)) if isinstance(state, Mapping) else None


def body_of_names(names: Iterable[str]) -> str | None:
    """The body whose state dict has these names, perhaps with a prefix; None for an unknown one."""
    names = list(names)
    for mark, body in _MARKS.items():
        if any(name.endswith(mark) for name in names):
            return body
    prefix = next((name.removesuffix(_RESNET) for name in names if name.endswith(_RESNET)), None)
    if prefix is None:
        return None
    stage = f"{prefix}{_STAGE}"
    blocks = {n.removeprefix(stage).split(".")[0] for n in names if n.startswith(stage)}
    return RESNETS.get((len(blocks), f"{stage}0.conv3.weight" in names))
