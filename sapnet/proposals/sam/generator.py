"""Proposals by the Segment Anything Model (Kirillov et al., ICCV 2023): encode once, decode often.

On the `segment-anything` package, with the weights of any checkpoint of SAM's architecture.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from sapnet.proposals.sam.attention import fuse_attention
from sapnet.proposals.sam.checkpoints import check_type, find_checkpoint, unreadable
from sapnet.proposals.sam.decoder import PromptDecoder
from sapnet.proposals.sam.load import load_sam
from sapnet.proposals.sam.masks import Frame
from sapnet.proposals.sam.prompting import PromptedGenerator, weights_digest
from sapnet.types import ByteArray
from sapnet.utils.files import file_sha256
from sapnet.utils.precision import multiplies_bfloat16

_CELL = 4  # pixels of the input along the side of a logit


class SamNetwork:
    """A SAM as a promptable network, with the decoder that shares what prompts share."""

    def __init__(
        self, model: Sam, digest: str, device: str | None = None, encoder_bf16: bool | None = None
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        if isinstance(self.model.image_encoder, ImageEncoderViT):
            fuse_attention(self.model.image_encoder)
        self.digest, self.level = digest, float(model.mask_threshold)
        if multiplies_bfloat16(self.device) if encoder_bf16 is None else encoder_bf16:
            self.model.image_encoder.to(torch.bfloat16)
            self.digest += " bf16"
        self._resize = ResizeLongestSide(model.image_encoder.img_size)
        self._side = int(model.prompt_encoder.input_image_size[0])

    def frame(self, size: tuple[int, int]) -> Frame:
        """The image's longer side fills SAM's square, as prompts see it."""
        side = self._side
        content = self._resize.get_preprocess_shape(*size, side)
        return Frame(content, cells=side // _CELL, canvas=side, cut=content)

    def prepare(self, image: ByteArray) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, h, w) uint8 on the CPU, the longer side as SAM wants it."""
        resized = self._resize.apply_image(np.ascontiguousarray(image))
        return torch.as_tensor(resized).permute(2, 0, 1)[None].contiguous()

    def encode(self, prepared: Tensor) -> tuple[Tensor, ...]:
        """SAM's features (1, C, h, w) of a prepared image."""
        inputs = self.model.preprocess(prepared.to(self.device))
        dtype = next(self.model.image_encoder.parameters()).dtype
        return (self.model.image_encoder(inputs.to(dtype)).float(),)

    def decoder(self, features: Sequence[Tensor], frame: Frame) -> PromptDecoder:
        """The decoder of one image's prompts, on its part of the square alone."""
        return PromptDecoder(self.model, features[0], frame.reach)


class SamGenerator(PromptedGenerator):
    """3 masks of each point alone, and 3 of the point with its neighbours as negative prompts."""

    name = "sam"
    network: SamNetwork

    def __init__(
        self,
        *,
        model_type: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        model: Sam | None = None,
        negatives: int = 4,
        jitters: int = 0,
        box_round: bool = False,
        chunk: int | None = None,
        embedding_cache_mb: int = 0,
        encoder_bf16: bool | None = None,
        device: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Finds, checks and loads the weights, unless a built `model` is given.

        Args:
            model_type: vit_b, vit_l or vit_h; None is what the checkpoint's shapes say.
            checkpoint: a path, or a name that SAPNET_SAM_CHECKPOINTS knows; see `find_checkpoint`.
            model: a built SAM, in place of a checkpoint.
            negatives: see `PromptedGenerator`, as for the next four.
            jitters: places round the point.
            box_round: a second decoding.
            chunk: prompts decoded at a time.
            embedding_cache_mb: of encoded images, 4 MB each.
            encoder_bf16: encode in bfloat16; masks change a little. None does where a GPU
                multiplies it.
            device: None takes CUDA where there is one.
            cache_dir: where downloads and embeddings are kept.

        Raises:
            WeightsUnavailable: there are no weights, or none of a SAM.
            ValueError: a setting is out of its range, or the checkpoint is of another type.
        """

        def load() -> SamNetwork:
            if model is not None:
                return SamNetwork(model, weights_digest(model), device, encoder_bf16)
            path = find_checkpoint(model_type, checkpoint, cache_dir)
            check_type(path, str(path), model_type)
            try:
                return SamNetwork(load_sam(path), file_sha256(path), device, encoder_bf16)
            except (OSError, ValueError) as error:
                raise unreadable(str(path), error) from error

        super().__init__(
            load,
            negatives=negatives,
            jitters=jitters,
            box_round=box_round,
            chunk=chunk,
            embedding_cache_mb=embedding_cache_mb,
            cache_dir=cache_dir,
        )
