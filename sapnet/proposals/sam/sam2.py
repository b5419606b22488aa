"""Proposals by SAM 2 and 2.1 (Ravi et al., 2024), on the `transformers` package.

The image is squashed to a square, and two feature maps of high resolution go into the decoder, so
that the decoder is the package's own.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.proposals.sam.checkpoints import check_type, find_sam2, unreadable, ways
from sapnet.proposals.sam.masks import Frame
from sapnet.proposals.sam.prompting import Decoder, PromptedGenerator, weights_digest
from sapnet.types import ByteArray
from sapnet.utils.precision import mixed, multiplies_bfloat16

if TYPE_CHECKING:
    from transformers import Sam2Model

_SHOWN = 3  # weights in a message


class Sam2Network:
    """A SAM 2 as a promptable network."""

    level = 0.0

    def __init__(
        self, model: "Sam2Model", device: str | None = None, encoder_bf16: bool | None = None
    ) -> None:
        from transformers import Sam2ImageProcessor

        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.digest = weights_digest(model)
        self._bf16 = multiplies_bfloat16(self.device) if encoder_bf16 is None else encoder_bf16
        if self._bf16:
            self.digest += " bf16"
        self.model = model.to(self.device).eval()
        self._side = int(model.config.prompt_encoder_config.image_size)
        self._cells = int(model.prompt_encoder.mask_input_size[0])
        self._inputs = Sam2ImageProcessor(size={"height": self._side, "width": self._side})

    def frame(self, size: tuple[int, int]) -> Frame:
        """The image fills the square; masks are resized once, as the package does it."""
        square = (self._cells, self._cells)
        return Frame((self._side, self._side), self._cells, canvas=self._cells, cut=square)

    def prepare(self, image: ByteArray) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, h, w) float32 on the CPU, squashed to the square."""
        pixels: Tensor = self._inputs(
            images=np.ascontiguousarray(image),
            input_data_format="channels_last",
            return_tensors="pt",
        )["pixel_values"]
        return pixels

    def encode(self, prepared: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (1, C, h, w) of three resolutions, the coarsest last."""
        pixels = prepared.to(self.device)
        with mixed(self.device, "bfloat16" if self._bf16 else "float32"):
            features = self.model.get_image_embeddings(pixels)
        return tuple(one.float() for one in features)

    def decoder(self, features: Sequence[Tensor], frame: Frame) -> Decoder:
        """The decoder of one image's prompts."""

        def decode(
            points: Tensor, labels: Tensor, boxes: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            given = points.shape[1] > 0
            answers = [
                self.model(
                    image_embeddings=list(features),
                    input_points=points[None] if given else None,
                    input_labels=labels[None] if given else None,
                    input_boxes=None if boxes is None else boxes[None],
                    multimask_output=several,
                )
                for several in ((True,) if given else (False, True))
            ]
            logits = torch.cat([answer.pred_masks[0] for answer in answers], 1)
            return logits, torch.cat([answer.iou_scores[0] for answer in answers], 1)

        return decode


class Sam2Generator(PromptedGenerator):
    """3 masks of each point alone, and 3 of the point with its neighbours as negative prompts."""

    name = "sam2"
    network: Sam2Network

    def __init__(
        self,
        *,
        model_type: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        model: "Sam2Model | None" = None,
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
            model_type: tiny, small, base-plus or large; None is what the checkpoint says.
            checkpoint: a folder, or a name that SAPNET_SAM_CHECKPOINTS knows; see `find_sam2`.
            model: a built SAM 2, in place of a checkpoint.
            negatives: see `PromptedGenerator`, as for the next four.
            jitters: places round the point.
            box_round: a second decoding.
            chunk: prompts decoded at a time.
            embedding_cache_mb: of encoded images, 16 MB each.
            encoder_bf16: encode in bfloat16; masks change a little. None does where a GPU
                multiplies it.
            device: None takes CUDA where there is one.
            cache_dir: where embeddings are kept; downloads are where `transformers` has them.

        Raises:
            InvalidConfig: `transformers` is not installed.
            WeightsUnavailable: there are no weights, or none of a SAM 2.
            ValueError: a setting is out of its range, or the checkpoint is of another type.
        """

        def load() -> Sam2Network:
            built = load_sam2(model_type, checkpoint) if model is None else model
            return Sam2Network(built, device, encoder_bf16)

        super().__init__(
            load,
            negatives=negatives,
            jitters=jitters,
            box_round=box_round,
            chunk=chunk,
            embedding_cache_mb=embedding_cache_mb,
            cache_dir=cache_dir,
        )


def load_sam2(
    model_type: str | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> "Sam2Model":
    """A SAM 2 in float32, of a folder or downloaded by `transformers`.

    Raises:
        InvalidConfig: `transformers` is not installed.
        WeightsUnavailable: there are no weights, or they are not all there.
        ValueError: the checkpoint is of another type.
    """
    try:
        from transformers import Sam2Model
    except ImportError as error:
        words = "the proposals 'sam2' need transformers: pip install 'sapnet-service[sam2]'"
        raise InvalidConfig(words) from error
    source = find_sam2(model_type, checkpoint)
    if not isinstance(source, str):
        check_type(source, str(source), model_type, "sam2")
    try:
        model, loading = Sam2Model.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of configurations, safetensors and downloads, nothing is shared
        why = str(error).partition("\n")[0]
        if isinstance(source, str):
            words = f"transformers could not fetch {source}: {why}; {ways('sam2')}"
            raise WeightsUnavailable(words) from error
        raise unreadable(str(source), ValueError(why), "sam2") from error
    if missing := sorted(loading["missing_keys"]):
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        lacks = ValueError(f"it lacks {', '.join(missing[:_SHOWN])}{more}")
        raise unreadable(str(source), lacks, "sam2")
    return model
