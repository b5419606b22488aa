"""The learned prompter in this process: masks from clicks, with images' features kept between."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from app.errors import Unavailable
from sapnet.errors import WeightsUnavailable
from sapnet.types import BoolArray, ByteArray

if TYPE_CHECKING:
    from sapnet.proposals.interactive.clicks import Click
    from sapnet.proposals.prompter.network import Prompter
    from sapnet.proposals.prompter.scene import Scene


def load() -> "Prompter":
    """The network that is shipped. Raises WeightsUnavailable."""
    from sapnet.proposals.prompter import weights

    return weights.load()


class ClickModel:
    """The features of the images that were clicked last, so that a further click is cheap.

    The first click loads torch and the weights. One lock for the network, which uses every core
    for one image as it is; images are decoded outside of it.
    """

    def __init__(self, images: int, loader: "Callable[[], Prompter]" = load) -> None:
        """Load nothing yet.

        Args:
            images: how many to keep the features of, at most 50 MB each.
            loader: of the network.
        """
        self._loader = loader
        self._most = images
        self._scenes: OrderedDict[str, Scene] = OrderedDict()
        self._lock = threading.Lock()

    def refine(
        self,
        sha256: str,
        image: AbstractContextManager[ByteArray],
        clicks: "Sequence[Click]",
        mask: BoolArray | None,
    ) -> BoolArray:
        """The mask that the clicks mean, (H, W) bool.

        Args:
            sha256: of the image's file.
            image: gives (H, W, 3) uint8 RGB; entered only where the features are not kept.
            clicks: in pixels of the image, in the order in which they were made.
            mask: (H, W) bool, the present one, or None.

        Raises:
            Unavailable: this installation lacks the network's weights.
            ValueError: clicks contradict each other, or there is nothing to start from.
        """
        from sapnet.proposals.prompter import clicks as prompter

        with self._lock:
            scene = self._kept(sha256)
        if scene is None:
            with image as pixels, self._lock:
                scene = self._kept(sha256) or self._add(sha256, pixels)
        with self._lock:
            return prompter.refine(scene, clicks, mask)

    def _kept(self, sha256: str) -> "Scene | None":
        if sha256 in self._scenes:
            self._scenes.move_to_end(sha256)
        return self._scenes.get(sha256)

    def _add(self, sha256: str, image: ByteArray) -> "Scene":
        from sapnet.proposals.prompter.scene import Scene

        try:
            scene = Scene(self._loader(), image)
        except WeightsUnavailable as error:
            raise Unavailable(f"Masks from clicks are not available: {error}") from error
        while len(self._scenes) >= self._most:
            self._scenes.popitem(last=False)
        self._scenes[sha256] = scene
        return scene
