"""Proposals by a network that encodes an image once and draws masks of points as often as asked."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sapnet.data.masks import tight_boxes
from sapnet.proposals.sam.embedding_cache import EmbeddingCache, key_of
from sapnet.proposals.sam.masks import Frame, distinct, rles_of
from sapnet.types import Box, ByteArray, FloatArray, ImageInfo, PointAnnotation, RawProposals
from sapnet.utils.download import default_cache_dir

Decoder = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Points (P, n, 2) float32 xy in pixels of the model's input, labels (P, n) int32, 1 inside and 0
outside, and boxes (P, 4) xyxy or None -> logits (P, m, h, w), at least the frame's `reach`, and
predicted IoU (P, m). m is 3; of boxes without a point 4, the first the network's single answer."""


Decoding = tuple[FloatArray, FloatArray, str]
"""Logits (m, h, w), predicted IoU (m,) and the tag of one prompt's masks."""

_MOST_JITTERS = 16
_JITTER, _BETWEEN = 0.01, 0.25  # radius: of the image's longer side, and of the way to a neighbour


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

    def prepare(self, image: ByteArray) -> Tensor:
        """(H, W, 3) uint8 -> what `encode` takes, still on the CPU."""
        ...

    def encode(self, prepared: Tensor) -> tuple[Tensor, ...]:
        """Float32 features (1, C, h, w), one or more."""
        ...

    def decoder(self, features: Sequence[Tensor], frame: Frame) -> Decoder:
        """The decoder of one image's prompts."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the network is asked at once.

    Attributes:
        points: (n, 2) xy, pixels of the image; the last `negatives` of them are outside.
        source: the tag of its masks.
        box: xyxy, pixels of the image.
    """

    points: np.ndarray
    negatives: int
    source: str
    box: Box | None = None

    @property
    def kind(self) -> tuple[int, bool]:
        """What may go through the decoder together: padding would change masks."""
        return len(self.points), self.box is not None


class PromptedGenerator:
    """3 masks of each point alone, and 3 of the point with its neighbours as negative prompts.

    Of an object with a box, 4 of the box alone, 3 of box and point, 3 of box and neighbours. By
    settings, 3 more of each of some places near the point, and 3 more of the point with the box of
    the most confident mask so far, which stops at other objects and is whole.
    """

    name: str
    calibrated = False

    def __init__(
        self,
        load: Callable[[], PromptableNetwork],
        *,
        negatives: int = 4,
        jitters: int = 0,
        box_round: bool = False,
        chunk: int | None = None,
        embedding_cache_mb: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Checks the settings, then loads the network.

        Args:
            load: makes the network.
            negatives: how many of the nearest other points are negative prompts of the second
                decoding; 0 turns it off.
            jitters: so many places on a circle round the point are prompts, too; at most 16.
            box_round: decode once more, from the box of each point's most confident mask.
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
        if not 0 <= jitters <= _MOST_JITTERS:
            raise ValueError(f"jitters {jitters} is not in 0..{_MOST_JITTERS}")
        if embedding_cache_mb < 0:
            raise ValueError(f"embedding_cache_mb {embedding_cache_mb} is below 0")
        self.negatives, self.jitters, self.box_round = negatives, jitters, box_round
        self.network = load()
        self.chunk = chunk or (1 if self.network.device.type == "cpu" else 32)
        self.encodes = 0  # images encoded so far
        # beside the one on the GPU the next is read and resized, and the last one's RLEs are made
        self.images_at_once = 1 if self.network.device.type == "cpu" else 3
        self._turn = Lock()  # of the network: its memory holds the work of one image
        folder = Path(cache_dir or default_cache_dir()) / "embeddings"
        self._kept = (
            EmbeddingCache(folder, embedding_cache_mb << 20) if embedding_cache_mb else None
        )

    def fingerprint(self) -> str:
        """The chunk and the device are left out: they change no mask."""
        parts = f"{self.name} 2 {self.network.digest} {self.negatives}"
        if self.jitters or self.box_round:
            parts += f" {self.jitters} {self.box_round}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """The masks of each annotation, with the network's IoU as confidence.

        A mask that is the double of one of higher confidence is left out.
        """
        if not annotations:
            return
        points = np.array([(a.x, a.y) for a in annotations], np.float64)
        frame = self.network.frame(info.size)
        decoder = self._decoder(image, frame)
        for start in range(0, len(points), self.chunk):
            indices = range(start, min(start + self.chunk, len(points)))
            asked = [
                self._prompts(points, index, annotations[index], info.size) for index in indices
            ]
            decodings = self._answers(decoder, asked, frame, info.size)
            if self.box_round:
                again = []
                for index, answers in zip(indices, decodings, strict=True):
                    box = self._box(answers, frame, info.size)
                    prompt = Prompt(points[[index]], 0, f"{self.name}-round", box)
                    again.append([prompt] if box is not None and annotations[index].pointed else [])
                more = self._answers(decoder, again, frame, info.size)
                decodings = [one + two for one, two in zip(decodings, more, strict=True)]
            for answers in decodings:
                yield self._proposals(answers, frame, info.size)

    def _answers(
        self,
        decoder: Decoder,
        asked: Sequence[Sequence[Prompt]],
        frame: Frame,
        size: tuple[int, int],
    ) -> list[list[Decoding]]:
        """What is drawn for each point's prompts, in order."""
        flat = [prompt for prompts in asked for prompt in prompts]
        with self._turn:
            decoded = iter(self._decode(decoder, flat, frame, size))
        return [[(*next(decoded), prompt.source) for prompt in prompts] for prompts in asked]

    def _box(self, answers: Sequence[Decoding], frame: Frame, size: tuple[int, int]) -> Box | None:
        """The box of the most confident mask that is not empty."""
        best: tuple[float, Box] | None = None
        for logits, quality, _ in answers:
            rles = rles_of(logits, frame, size, self.network.level)
            for box, confidence in zip(tight_boxes(rles).tolist(), quality.tolist(), strict=True):
                if box[2] > box[0] and (best is None or confidence > best[0]):
                    best = confidence, (box[0], box[1], box[2], box[3])
        return best[1] if best else None

    def _prompts(
        self,
        points: np.ndarray,
        index: int,
        annotation: PointAnnotation,
        size: tuple[int, int],
    ) -> list[Prompt]:
        """The prompts of one annotation; points: (N, 2) of all of the image's."""
        own, others = points[[index]], points[nearest(points, index, self.negatives)]
        name, box, count = self.name, annotation.box, len(others)
        if box is None:
            prompts = [Prompt(own, 0, name)]
            if count:
                prompts.append(Prompt(np.concatenate([own, others]), count, f"{name}-negatives"))
            around = places_round(points, index, self.jitters, size)
            return prompts + [Prompt(place[None], 0, f"{name}-jitter") for place in around]
        prompts = [Prompt(own[:0], 0, f"{name}-box", box)]
        if annotation.pointed:
            prompts.append(Prompt(own, 0, f"{name}-box-point", box))
        if count:
            prompts.append(Prompt(others, count, f"{name}-box-negatives", box))
        return prompts

    @torch.inference_mode()
    def _decoder(self, image: ByteArray, frame: Frame) -> Decoder:
        """The decoder of an image's prompts. Kept features are taken where there are."""
        key = key_of(image, self.network.digest) if self._kept else ""
        features = self._kept.get(key) if self._kept else None
        prepared = self.network.prepare(image) if features is None else None
        with self._turn:
            if prepared is not None:
                features = self.network.encode(prepared)
                self.encodes += 1
            assert features is not None
            decoder = self.network.decoder([f.to(self.network.device) for f in features], frame)
        if self._kept and prepared is not None:
            self._kept.put(key, features)
        return decoder

    @torch.inference_mode()
    def _decode(
        self, decoder: Decoder, prompts: Sequence[Prompt], frame: Frame, size: tuple[int, int]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Low-resolution logits (m, h, w) and confidence (m,) of each prompt, in order.

        Args:
            decoder: of the image.
            prompts: those of a kind go through the decoder together.
            frame: of the image.
            size: (H, W) of the image.
        """
        results: dict[int, tuple[FloatArray, FloatArray]] = {}
        scale = np.array(frame.content[::-1]) / size[::-1]
        device = self.network.device
        for kind in sorted({p.kind for p in prompts}):
            group = [i for i, p in enumerate(prompts) if p.kind == kind]
            # the prompt encoders of the family add half a pixel of their input
            pixels = (np.stack([prompts[i].points for i in group]) - 0.5) * scale
            coordinates = torch.as_tensor(pixels, dtype=torch.float32, device=device)
            labels = torch.ones(pixels.shape[:2], dtype=torch.int32, device=device)
            for row, i in enumerate(group):
                labels[row, kind[0] - prompts[i].negatives :] = 0
            boxes = None
            if kind[1]:
                corners = (np.array([prompts[i].box for i in group]) - 0.5) * np.tile(scale, 2)
                boxes = torch.as_tensor(corners, dtype=torch.float32, device=device)
            for start in range(0, len(group), self.chunk):
                part = slice(start, start + self.chunk)
                some = None if boxes is None else boxes[part]
                logits, quality = decoder(coordinates[part], labels[part], some)
                pairs = zip(
                    logits.float().cpu().numpy(), quality.float().cpu().numpy(), strict=True
                )
                results.update(zip(group[part], pairs, strict=True))
        return [results[i] for i in range(len(prompts))]

    def _proposals(
        self,
        decodings: Sequence[Decoding],
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


def places_round(points: np.ndarray, index: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """(count, 2) xy on a circle round a point, within the image.

    Its radius is a hundredth of the image's longer side, less where another point is near.

    Args:
        points: (N, 2) of all of the image's.
        size: (H, W) of the image.
    """
    others = nearest(points, index, 1)
    apart = float(np.hypot(*(points[others[0]] - points[index]))) if others else np.inf
    radius = min(_JITTER * max(size), _BETWEEN * apart)
    angles = 2 * np.pi * np.arange(count) / max(count, 1)
    places = points[index] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.clip(places, 0.5, np.array(size[::-1]) - 0.5)
