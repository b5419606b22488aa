"""The type of the SAM 2 in a folder, read from its `config.json`. Imports no torch.

Ravi et al., 2024: four sizes of its image encoder, Hiera. Folders are those of `save_pretrained` of
the `transformers` package: `config.json` and `model.safetensors`.
"""

import json
from pathlib import Path
from typing import Any

MODEL_TYPES = {
    (96, (1, 2, 7, 2)): "tiny",
    (96, (1, 2, 11, 2)): "small",
    (112, (2, 3, 16, 3)): "base-plus",
    (144, (2, 6, 36, 4)): "large",
}
"""By the width of the first stage and the blocks of each stage."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FAMILY = ("sam2", "sam2_video")  # the images' part of the latter is the former
_DEFAULTS: dict[str, Any] = {"hidden_size": 96, "blocks_per_stage": [1, 2, 7, 2]}  # transformers'


def read_sam2_type(folder: Path) -> str:
    """tiny, small, base-plus or large, else a description by sizes.

    Raises:
        OSError: the configuration or the weights are not there.
        ValueError: it is no SAM 2; the text says why, without the path.
    """
    (folder / WEIGHTS).stat()
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        family = config.get("model_type")
        if family not in _FAMILY:
            raise ValueError(f"{CONFIG} is of a model of type {family!r}, not {_FAMILY[0]!r}")
        sizes = _DEFAULTS | (config.get("vision_config", {}).get("backbone_config") or {})
        width, blocks = sizes["hidden_size"], tuple(sizes["blocks_per_stage"])
        name = MODEL_TYPES.get((width, blocks))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{CONFIG} is not as transformers writes it ({error})") from error
    return name or f"a Hiera of {'+'.join(map(str, blocks))} blocks from width {width}"
