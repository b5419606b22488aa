"""Proposals by a network that encodes an image once and draws masks of points as often as asked."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sapnet.proposals.sam.embedding_cache import EmbeddingCache, key_of
from sapnet.proposals.sam.masks import Frame, distinct, rles_of
from sapnet.types import ByteArray, FloatArray, ImageInfo, PointAnnotation, RawProposals
from sapnet.utils.download import default_cache_dir

Decoder = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points (P, n, 2) float32 xy in pixels of the model's input and labels (P, n) int32, 1 inside and
0 outside -> logits (P, 3, h, w), at least the frame's `reach`, and predicted IoU (P, 3)."""


class PromptableNetwork(Protocol):
    """A member of the SAM family, on its device."""

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        ...

    @property
    def digest(self) -> str:
        """Of the weights, and of whatever else of the network changes masks."""
        ...

    @property
    def level(self) -> float:
        """Logits above it are inside."""
        ...

    def frame(self, size: tuple[int, int]) -> Frame:
        """The place of an image of this size (H, W) in what the network sees and draws."""
        ...

    def encode(self, image: ByteArray) -> tuple[Tensor, ...]:
        """(H, W, 3) uint8 -> float32 features (1, C, h, w), one or more."""
        ...

    def decoder(self, features: Sequence[Tensor], frame: Frame) -> Decoder:
        """The decoder of one image's prompts."""
        ...


class PromptedGenerator:
    """3 masks of each point alone, and 3 of the point with its neighbours as negative prompts."""

    name: str
    calibrated = False

    def __init__(
        self,
        load: Callable[[], PromptableNetwork],
        *,
        negatives: int = 4,
        chunk: int | None = None,
        embedding_cache_mb: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Checks the settings, then loads the network.

        Args:
            load: makes the network.
            negatives: how many of the nearest other points are negative prompts of the second
                decoding; 0 turns it off.
            chunk: prompts decoded at a time, None is 1 on a CPU, whose caches hold no more, and 32
                elsewhere.
            embedding_cache_mb: so much of encoded images is kept in the cache folder, for runs
                with other settings; 0 keeps none.
            cache_dir: where they are kept.

        Raises:
            ValueError: a setting is out of its range.
        """
        if negatives < 0 or (chunk is not None and chunk < 1):
            raise ValueError(f"negatives {negatives} is below 0, or chunk {chunk} below 1")
        if embedding_cache_mb < 0:
            raise ValueError(f"embedding_cache_mb {embedding_cache_mb} is below 0")
        self.negatives = negatives
        self.network = load()
        self.chunk = chunk or (1 if self.network.device.type == "cpu" else 32)
        self.encodes = 0  # images encoded so far
        folder = Path(cache_dir or default_cache_dir()) / "embeddings"
        self._kept = (
            EmbeddingCache(folder, embedding_cache_mb << 20) if embedding_cache_mb else None
        )

    def fingerprint(self) -> str:
        """The chunk and the device are left out: they change no mask."""
        parts = f"{self.name} 2 {self.network.digest} {self.negatives}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """Up to six masks an annotation, with the network's IoU as confidence.

        Three where no negative is at hand. A mask that is the double of one of higher confidence is
        left out.
        """
        if not annotations:
            return
        points = np.array([(a.x, a.y) for a in annotations], np.float64)
        frame = self.network.frame(info.size)
        decoder = self._decoder(image, frame)
        others = [nearest(points, index, self.negatives) for index in range(len(points))]
        for start in range(0, len(points), self.chunk):
            indices = range(start, min(start + self.chunk, len(points)))
            prompts = [points[[i]] for i in indices]
            prompts += [points[[i, *others[i]]] for i in indices if len(others[i])]
            decoded = iter(self._decode(decoder, prompts, frame, info.size))
            alone = [next(decoded) for _ in indices]
            for place, index in enumerate(indices):
                decodings = [(*alone[place], self.name)]
                if len(others[index]):
                    decodings.append((*next(decoded), f"{self.name}-negatives"))
                yield self._proposals(decodings, frame, info.size)

    @torch.inference_mode()
    def _decoder(self, image: ByteArray, frame: Frame) -> Decoder:
        """The decoder of an image's prompts. Kept features are taken where there are."""
        key = key_of(image, self.network.digest) if self._kept else ""
        features = self._kept.get(key) if self._kept else None
        if features is None:
            features = self.network.encode(image)
            self.encodes += 1
            if self._kept:
                self._kept.put(key, features)
        return self.network.decoder([one.to(self.network.device) for one in features], frame)

    @torch.inference_mode()
    def _decode(
        self, decoder: Decoder, prompts: Sequence[np.ndarray], frame: Frame, size: tuple[int, int]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Low-resolution logits (3, h, w) and confidence (3,) of each prompt, in order.

        Prompts of equal P go through the decoder together: padding would change it.

        Args:
            decoder: of the image.
            prompts: (P, 2) xy each, pixels of the image; the first point is positive, the rest are
                negative.
            frame: of the image.
            size: (H, W) of the image.
        """
        results: dict[int, tuple[FloatArray, FloatArray]] = {}
        scale = np.array(frame.content[::-1]) / size[::-1]
        for length in sorted({len(p) for p in prompts}):
            group = [i for i, p in enumerate(prompts) if len(p) == length]
            # the prompt encoders of the family add half a pixel of their input
            pixels = (np.stack([prompts[i] for i in group]) - 0.5) * scale
            coordinates = torch.as_tensor(pixels, dtype=torch.float32, device=self.network.device)
            labels = torch.zeros(pixels.shape[:2], dtype=torch.int32, device=self.network.device)
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
        frame: Frame,
        size: tuple[int, int],
    ) -> RawProposals:
        """The masks of one point at image size, but for those that are one another's double."""
        logits = np.concatenate([logits for logits, _, _ in decodings])
        confidence = np.concatenate([quality for _, quality, _ in decodings]).clip(0, 1)
        sources = [source for _, quality, source in decodings for _ in quality]
        rows, columns = frame.used
        kept = distinct(logits[:, :rows, :columns] > self.network.level, confidence)
        rles = rles_of(logits[kept], frame, size, self.network.level)
        tags = tuple(sources[i] for i in kept)
        return RawProposals(tuple(rles), confidence[kept].astype(np.float32), tags)


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 of a built model's weights, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def nearest(points: np.ndarray, index: int, count: int) -> list[int]:
    """Indices of the `count` nearest other points; those on the point's own pixel are left out."""
    distance = np.hypot(*(points - points[index]).T)
    order = np.argsort(distance, kind="stable")
    return [int(i) for i in order if i != index and distance[i] >= 1][:count]
