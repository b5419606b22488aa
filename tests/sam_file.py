"""Files with the shapes of a SAM and next to no weights, written without torch."""

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def sam_file(path: Path, width: int, blocks: int, **wrap: str) -> Path:
    """As `torch.save` writes it: names and shapes are whole enough to tell the type.

    wrap: `entry`, under which the state dict is, and `prefix` of its keys.
    """
    state = OrderedDict(
        (wrap.get("prefix", "") + name, _Tensor(shape)) for name, shape in _shapes(width, blocks)
    )
    document = {wrap["entry"]: state} if "entry" in wrap else state
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(document, protocol=2))
    return path


def sam2_folder(path: Path, width: int, blocks: list[int]) -> Path:
    """As `save_pretrained` writes it, but for the weights."""
    path.mkdir()
    sizes = {"hidden_size": width, "blocks_per_stage": blocks}
    config = {"model_type": "sam2", "vision_config": {"backbone_config": sizes}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


class _Tensor:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        return _rebuild_tensor_v2, (None, 0, self.shape, self.shape, False, OrderedDict())


def _rebuild_tensor_v2(*_: Any) -> None: ...


def _shapes(width: int, blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    encoder, decoder = "image_encoder", "mask_decoder"
    yield f"{encoder}.patch_embed.proj.weight", (width, 3, 16, 16)
    yield f"{encoder}.pos_embed", (1, 64, 64, width)
    for i in range(blocks):
        last_of_four = i % (blocks // 4) == blocks // 4 - 1
        yield f"{encoder}.blocks.{i}.attn.rel_pos_h", (127 if last_of_four else 27, 64)
        yield f"{encoder}.blocks.{i}.mlp.lin1.weight", (4 * width, width)
    yield f"{encoder}.neck.0.weight", (256, width, 1, 1)
    yield "prompt_encoder.mask_downscaling.3.weight", (16, 4, 2, 2)
    for i in range(2):
        yield f"{decoder}.transformer.layers.{i}.mlp.lin1.weight", (2048, 256)
    yield f"{decoder}.mask_tokens.weight", (4, 256)
    for i in range(3):
        yield f"{decoder}.iou_prediction_head.layers.{i}.weight", (256, 256)
