"""SAM's embeddings of images, kept: what takes ten seconds on a CPU is done once an image.

Other settings or other points ask the decoder again, not the encoder.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sapnet.types import ByteArray
from sapnet.utils.files import atomic_write, remove_oldest


class EmbeddingCache:
    """A folder of embeddings, a file each, of `max_bytes` at most: those used longest ago go."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, key: str) -> tuple[Tensor, ...] | None:
        """(1, C, h, w) each, on the CPU; None where they are not there, or cannot be read."""
        path = self._folder / f"{key}.pt"
        try:
            features = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # the unpickler stumbles over damaged bytes in any way it likes
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now
        # a release before this one kept SAM's one tensor by itself
        return (features,) if isinstance(features, Tensor) else tuple(features)

    def put(self, key: str, features: Sequence[Tensor]) -> None:
        """Keep them, and make room.

        Raises:
            DiskFull: no space is left.
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._folder / f"{key}.pt") as file:
            torch.save([one.detach().cpu().clone() for one in features], file)
        remove_oldest(self._folder.glob("*.pt"), self._max_bytes)


def key_of(image: ByteArray, weights: str) -> str:
    """sha256 of the pixels, their shape, and the digest of the weights.

    Args:
        image: (H, W, 3) uint8.
    """
    digest = hashlib.sha256(f"{image.shape} {weights} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
