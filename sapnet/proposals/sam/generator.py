"""Proposals by the Segment Anything Model (Kirillov et al., ICCV 2023): encode once, decode often.

On the `segment-anything` package, with the weights of any checkpoint of SAM's architecture.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from sapnet.proposals.sam.checkpoints import (
    check_type,
    default_cache_dir,
    find_checkpoint,
    unreadable,
)
from sapnet.proposals.sam.decoder import PromptDecoder
from sapnet.proposals.sam.embedding_cache import EmbeddingCache, key_of
from sapnet.proposals.sam.load import load_sam
from sapnet.proposals.sam.masks import LOGIT, distinct, reach, rles_of
from sapnet.types import ByteArray, FloatArray, ImageInfo, PointAnnotation, RawProposals
from sapnet.utils.files import file_sha256


class SamGenerator:
    """3 masks of each point alone, and 3 of the point with its neighbours as negative prompts."""

    name = "sam"
    calibrated = False

    def __init__(
        self,
        *,
        model_type: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        model: Sam | None = None,
        negatives: int = 4,
        chunk: int | None = None,
        embedding_cache_mb: int = 0,
        encoder_bf16: bool = False,
        device: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Finds, checks and loads the weights, unless a built `model` is given.

        Args:
            model_type: vit_b, vit_l or vit_h; None is what the checkpoint's shapes say.
            checkpoint: a path, or a name that SAPNET_SAM_CHECKPOINTS knows; see `find_checkpoint`.
            model: a built SAM, in place of a checkpoint.
            negatives: how many of the nearest other points are negative prompts of the second
                decoding; 0 turns it off.
            chunk: prompts decoded at a time, None is 1 on a CPU, whose caches hold no more, and 32
                elsewhere.
            embedding_cache_mb: so much of encoded images is kept in the cache folder, 4 MB an
                image, for runs with other settings; 0 keeps none.
            encoder_bf16: encode in bfloat16, faster where the processor multiplies it; masks change
                a little.
            device: None takes CUDA where there is one.
            cache_dir: where downloads and embeddings are kept.

        Raises:
            WeightsUnavailable: there are no weights, or none of a SAM.
            ValueError: a setting is out of its range, or the checkpoint is of another type.
        """
        if negatives < 0 or (chunk is not None and chunk < 1):
            raise ValueError(f"negatives {negatives} is below 0, or chunk {chunk} below 1")
        if embedding_cache_mb < 0:
            raise ValueError(f"embedding_cache_mb {embedding_cache_mb} is below 0")
        self.negatives = negatives
        if model is None:
            path = find_checkpoint(model_type, checkpoint, cache_dir)
            check_type(path, str(path), model_type)
            try:
                model = load_sam(path)
            except (OSError, ValueError) as error:
                raise unreadable(str(path), error) from error
            self._weights = file_sha256(path)
        else:
            self._weights = _weights_digest(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.chunk = chunk or (1 if self.device.type == "cpu" else 32)
        self.model = model.to(self.device).eval()
        self.encodes = 0  # images encoded so far
        if encoder_bf16:
            self.model.image_encoder.to(torch.bfloat16)
            self._weights += " bf16"
        folder = Path(cache_dir or default_cache_dir()) / "embeddings"
        self._kept = (
            EmbeddingCache(folder, embedding_cache_mb << 20) if embedding_cache_mb else None
        )

    def fingerprint(self) -> str:
        """The chunk and the device are left out: they change no mask."""
        parts = f"{self.name} 2 {self._weights} {self.negatives}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """Up to six masks an annotation, with SAM's IoU as confidence.

        Three where no negative is at hand. A mask that is the double of one of higher confidence is
        left out.
        """
        if not annotations:
            return
        points = np.array([(a.x, a.y) for a in annotations], np.float64)
        decoder, content = self._decoder(image)
        others = [_nearest(points, index, self.negatives) for index in range(len(points))]
        for start in range(0, len(points), self.chunk):
            indices = range(start, min(start + self.chunk, len(points)))
            prompts = [points[[i]] for i in indices]
            prompts += [points[[i, *others[i]]] for i in indices if len(others[i])]
            decoded = iter(self._decode(decoder, prompts, info.size))
            alone = [next(decoded) for _ in indices]
            for place, index in enumerate(indices):
                decodings = [(*alone[place], "sam")]
                if len(others[index]):
                    decodings.append((*next(decoded), "sam-negatives"))
                yield self._proposals(decodings, content, info.size)

    @torch.inference_mode()
    def _decoder(self, image: ByteArray) -> tuple[PromptDecoder, tuple[int, int]]:
        """The decoder of an image's prompts, and the size at which SAM encodes the image."""
        frame = self.model.image_encoder.img_size
        content = ResizeLongestSide.get_preprocess_shape(*image.shape[:2], frame)
        rows, columns = (reach(frame, side) for side in content)
        return PromptDecoder(self.model, self._encode(image), (rows, columns)), content

    def _encode(self, image: ByteArray) -> torch.Tensor:
        """(H, W, 3) uint8 -> SAM's features (1, C, h, w), kept ones where there are."""
        key = key_of(image, self._weights) if self._kept else ""
        features = self._kept.get(key) if self._kept else None
        if features is None:
            resized = self._resize().apply_image(np.ascontiguousarray(image))
            tensor = torch.as_tensor(resized, device=self.device).permute(2, 0, 1)[None]
            inputs = self.model.preprocess(tensor.contiguous())
            dtype = next(self.model.image_encoder.parameters()).dtype
            features = self.model.image_encoder(inputs.to(dtype)).float()
            self.encodes += 1
            if self._kept:
                self._kept.put(key, features)
        return features.to(self.device)

    @torch.inference_mode()
    def _decode(
        self, decoder: PromptDecoder, prompts: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Low-resolution logits (3, h, w) and confidence (3,) of each prompt, in order.

        Prompts of equal P go through the decoder together: padding would change it.

        Args:
            prompts: (P, 2) xy each, pixels of the image; the first point is positive, the rest are
                negative.
        """
        results: dict[int, tuple[FloatArray, FloatArray]] = {}
        for length in sorted({len(p) for p in prompts}):
            group = [i for i, p in enumerate(prompts) if len(p) == length]
            # SAM's prompt encoder adds half a pixel of its input frame
            pixels = np.stack([prompts[i] for i in group]) - 0.5
            coordinates = torch.as_tensor(
                self._resize().apply_coords(pixels, size), dtype=torch.float32, device=self.device
            )
            labels = torch.zeros((len(group), length), dtype=torch.int32, device=self.device)
            labels[:, 0] = 1
            for start in range(0, len(group), self.chunk):
                part = slice(start, start + self.chunk)
                logits, quality = decoder(coordinates[part], labels[part])
                pairs = zip(
                    logits.float().cpu().numpy(), quality.float().cpu().numpy(), strict=True
                )
                results.update(zip(group[part], pairs, strict=True))
        return [results[i] for i in range(len(prompts))]

    def _proposals(
        self,
        decodings: Sequence[tuple[FloatArray, FloatArray, str]],
        content: tuple[int, int],
        size: tuple[int, int],
    ) -> RawProposals:
        """The masks of one point at image size, but for those that are one another's double."""
        logits = np.concatenate([logits for logits, _, _ in decodings])
        confidence = np.concatenate([quality for _, quality, _ in decodings]).clip(0, 1)
        sources = [source for _, quality, source in decodings for _ in quality]
        frame, level = self.model.image_encoder.img_size, self.model.mask_threshold
        used = [math.ceil(side / LOGIT) for side in content]
        kept = distinct(logits[:, : used[0], : used[1]] > level, confidence)
        rles = rles_of(logits[kept], frame, content, size, level)
        tags = tuple(sources[i] for i in kept)
        return RawProposals(tuple(rles), confidence[kept].astype(np.float32), tags)

    def _resize(self) -> ResizeLongestSide:
        return ResizeLongestSide(self.model.image_encoder.img_size)


def _weights_digest(model: Sam) -> str:
    """sha256 of a built model's weights, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _nearest(points: np.ndarray, index: int, count: int) -> list[int]:
    """Indices of the `count` nearest other points; those on the point's own pixel are left out."""
    distance = np.hypot(*(points - points[index]).T)
    order = np.argsort(distance, kind="stable")
    return [int(i) for i in order if i != index and distance[i] >= 1][:count]
