"""SAM's architecture, read from the shapes of its weights. Imports no torch.

Kirillov et al., ICCV 2023: a ViT with relative positions, in windows but for some blocks, a prompt
encoder and a mask decoder. All sizes but the number of the decoder's heads show in the shapes.
EfficientViT-SAM has another image encoder, see `sapnet.proposals.sam.efficientvit`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapnet.utils.restricted_pickle import Shape, load_shapes

MODEL_TYPES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
"""Of Meta's models, by the width and the number of blocks of the image encoder."""
EFFICIENT_TYPES = {
    (5, 4): "efficientvit_l0",
    (5, 8): "efficientvit_l1",
    (5, 12): "efficientvit_l2",
    (6, 6): "efficientvit_xl0",
    (6, 12): "efficientvit_xl1",
}
"""EfficientViT-SAM's, by the number of stages and the depth of the neck."""
MODULES = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
_VIT = "image_encoder.patch_embed.proj.weight"
_EFFICIENT = "image_encoder.backbone.stages.0.op_list.0.conv.weight"
_MARKS = (_VIT, _EFFICIENT)


@dataclass(frozen=True, slots=True)
class Vit:
    """Sizes of SAM's own image encoder.

    Attributes:
        image_side: of the square input, pixels.
        patch_side: of a patch, pixels.
        width: of the features within.
        heads: of the attention.
        mlp_width: of the MLPs.
        window: side of the windows, patches; 0 where every block is global.
        global_blocks: indices of the blocks whose attention is global.
        depth: blocks.
    """

    image_side: int
    patch_side: int
    width: int
    heads: int
    mlp_width: int
    window: int
    global_blocks: tuple[int, ...]
    depth: int

    @property
    def model_type(self) -> str:
        """vit_b, vit_l or vit_h, else a description by sizes."""
        name = MODEL_TYPES.get((self.width, self.depth))
        return name or f"a ViT of {self.depth} blocks of width {self.width}"


@dataclass(frozen=True, slots=True)
class EfficientVit:
    """EfficientViT as image encoder; its blocks are built as the shapes say.

    Attributes:
        shapes: of its state dict.
        stages: how many.
        neck: blocks of the neck.
    """

    shapes: Mapping[str, Shape]
    stages: int
    neck: int

    @property
    def image_side(self) -> int:
        """Of the square input, pixels: what the published models were trained for."""
        return 512 if self.stages == 5 else 1024

    @property
    def model_type(self) -> str:
        """efficientvit_l0 to efficientvit_xl1, else a description by sizes."""
        name = EFFICIENT_TYPES.get((self.stages, self.neck))
        return name or f"an EfficientViT of {self.stages} stages and {self.neck} blocks of the neck"


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a SAM.

    Attributes:
        encoder: of images.
        channels: of the features, and width of the decoder.
        mask_channels: of the prompt encoder's inner layers for masks.
        decoder_depth: layers of the decoder's transformer.
        decoder_mlp_width: of the decoder's MLPs.
        masks: that the decoder draws of one prompt, beside the one for prompts without ambiguity.
        iou_depth: layers of the head that predicts the IoU.
        iou_width: of that head.
    """

    encoder: Vit | EfficientVit
    channels: int
    mask_channels: int
    decoder_depth: int
    decoder_mlp_width: int
    masks: int
    iou_depth: int
    iou_width: int

    @property
    def model_type(self) -> str:
        """Of its image encoder: a published name, else a description by sizes."""
        return self.encoder.model_type


def read_architecture(path: Path) -> Architecture:
    """Read the architecture from a checkpoint's shapes, without its weights.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no SAM; the text says what is missing, without the path.
    """
    return architecture_of(sam_state(load_shapes(path)))


def sam_state(document: Any) -> dict[str, Any]:
    """SAM's part of a checkpoint, by the names of the `segment_anything` package.

    The state dict may be an entry of the document (`model_state` of micro-sam), and its keys may
    have a prefix (`sam.`, `module.`). What is beside SAM (an instance decoder) is left out.

    Raises:
        ValueError: there is no SAM in it.
    """
    entries = document if isinstance(document, Mapping) else {}
    for state in (entries, *(e for e in entries.values() if isinstance(e, Mapping))):
        keys = [key for key in state if isinstance(key, str)]
        ends = ((key, mark) for key in keys for mark in _MARKS if key.endswith(mark))
        prefix = next((key.removesuffix(mark) for key, mark in ends), None)
        if prefix is not None:
            names = {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}
            return {n: state[key] for n, key in names.items() if n.startswith(MODULES)}
    raise ValueError(f"it holds no SAM: no key ends with {' or '.join(_MARKS)}")


def architecture_of(state: Mapping[str, Shape]) -> Architecture:
    """The architecture whose state dict has these shapes.

    Raises:
        ValueError: shapes are missing, or are not those of a SAM.
    """
    encoder = _efficient_vit(state) if _EFFICIENT in state else _vit(state)
    channels = _get(state, "mask_decoder.mask_tokens.weight", 2)[1]
    mask_channels = _get(state, "prompt_encoder.mask_downscaling.3.weight", 4)[0]
    return Architecture(
        encoder=encoder,
        channels=channels,
        mask_channels=mask_channels,
        decoder_depth=count_numbered(state, "mask_decoder.transformer.layers."),
        decoder_mlp_width=_get(state, "mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)[0],
        masks=_get(state, "mask_decoder.mask_tokens.weight", 2)[0] - 1,
        iou_depth=count_numbered(state, "mask_decoder.iou_prediction_head.layers."),
        iou_width=_get(state, "mask_decoder.iou_prediction_head.layers.0.weight", 2)[0],
    )


def _efficient_vit(state: Mapping[str, Shape]) -> EfficientVit:
    prefix = MODULES[0]
    shapes = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return EfficientVit(
        shapes=shapes,
        stages=count_numbered(shapes, "backbone.stages."),
        neck=count_numbered(shapes, "neck.middle.op_list."),
    )


def _vit(state: Mapping[str, Shape]) -> Vit:
    blocks = "image_encoder.blocks."
    width, _, patch_side, _ = _get(state, _VIT, 4)
    _, rows, columns, _ = _get(state, "image_encoder.pos_embed", 4)
    if rows != columns:
        raise ValueError(f"its image encoder sees {rows}×{columns} patches, SAM's a square of them")
    depth = count_numbered(state, blocks)
    positions = [_get(state, f"{blocks}{i}.attn.rel_pos_h", 2) for i in range(depth)]
    if not positions:
        raise ValueError("its image encoder has no blocks as SAM's ViT has")
    sides = [(length + 1) // 2 for length, _ in positions]
    windows = {side for side in sides if side != rows}
    if len(windows) > 1 or width % positions[0][1]:
        raise ValueError("its image encoder has windows or heads as none of SAM's ViTs has")
    return Vit(
        image_side=rows * patch_side,
        patch_side=patch_side,
        width=width,
        heads=width // positions[0][1],
        mlp_width=_get(state, f"{blocks}0.mlp.lin1.weight", 2)[0],
        window=windows.pop() if windows else 0,
        global_blocks=tuple(i for i, side in enumerate(sides) if side == rows),
        depth=depth,
    )


def _get(state: Mapping[str, Shape], name: str, dimensions: int) -> Shape:
    shape = state.get(name)
    if shape is None:
        raise ValueError(f"it lacks {name}")
    if not isinstance(shape, tuple) or len(shape) != dimensions or min(shape) < 1:
        raise ValueError(f"{name} has the shape {shape}, and SAM's has {dimensions} dimensions")
    return shape


def count_numbered(state: Mapping[str, Shape], prefix: str) -> int:
    """Number of the numbers that follow the prefix."""
    return len({m[1] for key in state if (m := re.match(rf"{re.escape(prefix)}(\d+)\.", key))})
