"""A SAM with the weights of a checkpoint, of whatever sizes these are."""

import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from sapnet.proposals.sam.architecture import (
    Architecture,
    EfficientVit,
    Vit,
    architecture_of,
    sam_state,
)
from sapnet.proposals.sam.efficientvit import EPSILON, EfficientVitEncoder
from sapnet.utils import restricted_pickle

_DECODER_HEADS = 8  # no shape tells; all of Meta's have so many
EFFICIENT_SIDE, EFFICIENT_PATCH = 1024, 16  # of EfficientViT-SAM's prompts: SAM's own
_SHOWN = 3  # of the weights that do not fit, in a message


def load_sam(path: Path) -> Sam:
    """Build what the checkpoint's shapes say, and load its weights, as float32.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no whole SAM; the text says what is missing, without the path.
    """
    shapes = sam_state(restricted_pickle.load_shapes(path))
    model = build_sam(architecture_of(shapes), device="meta")
    _check(shapes, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    try:
        document = torch.load(
            path,
            map_location="cpu",
            mmap=zipfile.is_zipfile(path),  # read once, as the weights are copied
            weights_only=False,  # the pickle module builds less than torch's own does
            pickle_module=restricted_pickle,
        )
    except OSError:
        raise
    except Exception as error:  # of torch, for damaged files, share no nearer class
        raise ValueError(f"it is damaged ({error})") from error
    for module in (model.image_encoder, model.prompt_encoder, model.mask_decoder):
        module.to_empty(device="cpu")
    model.load_state_dict(sam_state(document))
    return model


def build_sam(sizes: Architecture, device: str = "cpu") -> Sam:
    """A SAM of these sizes on a device; "meta" takes no memory.

    Its constants for normalizing pixels are on the CPU.
    """
    own, channels = sizes.encoder, sizes.channels
    side = own.image_side if isinstance(own, Vit) else EFFICIENT_SIDE
    grid = side // (own.patch_side if isinstance(own, Vit) else EFFICIENT_PATCH)
    with torch.device(device):
        encoder = _vit(own, channels) if isinstance(own, Vit) else _efficient_vit(own)
        prompts = PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=sizes.mask_channels,
        )
        decoder = MaskDecoder(
            num_multimask_outputs=sizes.masks,
            transformer=TwoWayTransformer(
                depth=sizes.decoder_depth,
                embedding_dim=channels,
                mlp_dim=sizes.decoder_mlp_width,
                num_heads=_DECODER_HEADS,
            ),
            transformer_dim=channels,
            iou_head_depth=sizes.iou_depth,
            iou_head_hidden_dim=sizes.iou_width,
        )
    if isinstance(own, EfficientVit):
        for module in decoder.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = EPSILON
    return Sam(encoder, prompts, decoder).eval()


def _vit(sizes: Vit, channels: int) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=sizes.image_side,
        patch_size=sizes.patch_side,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        mlp_ratio=sizes.mlp_width / sizes.width,
        out_chans=channels,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes.window,
        global_attn_indexes=sizes.global_blocks,
    )


def _efficient_vit(sizes: EfficientVit) -> EfficientVitEncoder:
    return EfficientVitEncoder(sizes.shapes, sizes.image_side)


def _check(shapes: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Every weight is there in its shape, and none is there that would not be used."""
    missing = [f"it lacks {name}" for name in expected if name not in shapes]
    differing = [
        f"{name} has the shape {shapes[name]}, not {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    unknown = [f"SAM has no {name}" for name in shapes if name not in expected]
    wrong = [*missing, *differing, *unknown]
    if wrong:
        more = f" (and {len(wrong) - _SHOWN} more)" if len(wrong) > _SHOWN else ""
        raise ValueError(f"it is no whole SAM: {'; '.join(wrong[:_SHOWN])}{more}")
