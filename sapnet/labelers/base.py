"""The interface of every labeler: labels for the segmenter, and delivered masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels, Selection
from sapnet.data.sampler import Step
from sapnet.data.samples import ImageRecord
from sapnet.types import PseudoMask

__all__ = ["Labeler", "Preparation", "PseudoLabels", "Selection"]


@dataclass(frozen=True)
class Preparation:
    """The circumstances of `Labeler.prepare`.

    Attributes:
        folder: of the run, for what is made once; a run started again finds it there.
        seed: of the run.
        report: called with (step, of, losses) as the preparation goes on.
        should_stop: whether the run was asked to stop.
        tested: ids of the images that the run is measured on at its end: nothing is learnt from
            them, though they get masks as all others.
    """

    folder: Path
    seed: int
    report: Callable[[int, int, dict[str, float]], None]
    should_stop: Callable[[], bool]
    tested: frozenset[int] = frozenset()


class Labeler(nn.Module):
    """Turns what is known of a batch into what the segmenter learns, and into delivered masks.

    It stands on the segmenter's pyramid, whose gradients its own losses may shape, and knows no
    segmenter. Its parameters are trained with the segmenter's; what else it remembers between steps
    (averages, prototypes, a memory bank) is in buffers or `get_extra_state`, so that checkpoints
    hold it. All that is random comes from the batch's generators.

    Attributes:
        preparation: the name of the stage in which `prepare` runs; None where there is nothing to
            prepare.
    """

    preparation: str | None = None

    def attach(self, segmenter: nn.Module) -> None:
        """Take notice of the segmenter that learns from it; called once, when both are made."""

    def expect(self, objects: Sequence[int]) -> None:
        """Take notice of how many objects of each class there are to learn from."""

    def conclude(self, segmenter: nn.Module) -> None:
        """Give the trained segmenter the weights to deliver, where they are others than its own."""

    def prepare(
        self, records: Sequence[ImageRecord], body: nn.Module, context: Preparation
    ) -> None:
        """Do what has to be done once, before the first step; the same again finds it done.

        Args:
            records: the images of the run, read when needed.
            body: the segmenter's, images (B, 3, H, W) to maps at strides 4, 8, 16, 32; left as it
                is.
            context: where, and how it is told and stopped.

        Raises:
            ImageProblem: an image cannot be read. Stopped: on request.
        """

    def forward(
        self, batch: Batch, features: list[Tensor], output: Any, step: Step | None = None
    ) -> PseudoLabels:
        """Make the pseudo-labels of a batch.

        Args:
            batch: with generators in training; without, no loss is computed.
            features: the segmenter's pyramid, finest first.
            output: the segmenter's output for the batch, in its own form.
            step: where the run stands; None once it is trained, when nothing warms up any more.
        """
        raise NotImplementedError

    def deliver(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[PseudoMask]:
        """The masks of one image for its owner, one an annotation and in their order.

        Args:
            batch: of one image.
            features: the pyramid of the trained segmenter.
            labels: `forward`'s of the batch.
            objects: what the segmenter draws for these labels.

        Returns:
            Masks without a quality, which only all masks of a run tell, but with the features that
            it is estimated from (`sapnet.labelers.quality`).
        """
        raise NotImplementedError
