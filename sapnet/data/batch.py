"""Data between the parts of a training step: batch, pseudo-labels, masks of labeled objects.

These stand below labelers and segmenters, which know each other by them alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sapnet.data.samples import Sample, pad, quarter_size
from sapnet.utils.device import to_device


@dataclass(frozen=True)
class Batch:
    """B images of one step.

    Attributes:
        images: (B, 3, H, W) float32, ImageNet-normalised and padded, on the model's device.
        generators: one an image, of all that is drawn at random for it; None where nothing is to be
            learned, as when the trained model labels its images.
    """

    samples: list[Sample]
    images: Tensor
    generators: Sequence[torch.Generator] | None = None

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of the masks at stride 4."""
        return quarter_size(self.images)


def make_batch(
    samples: list[Sample],
    device: torch.device,
    generators: Sequence[torch.Generator] | None = None,
    frame: tuple[int, int] | None = None,
) -> Batch:
    """Pad images to one size and bring them to `device`.

    Args:
        frame: see `pad`.
    """
    images = to_device(pad(samples, frame), device)
    return Batch(samples, images.contiguous(memory_format=torch.channels_last), generators)


@dataclass(frozen=True)
class Selection:
    """Which proposal of each bag a labeler takes, of the N objects of a batch.

    Attributes:
        index: (N,) int64 into the bag, on the CPU.
        posterior: (N, M) probabilities of the bag's masks, each row sums to 1.
        expected_iou: (N,) in [0, 1], of the selected mask with the object, under the posterior.
        learned: (N, M) at least 0, what the labeler has learned of each mask, which is a factor of
            the posterior; None where nothing is.
    """

    index: Tensor
    posterior: Tensor
    expected_iou: Tensor
    learned: Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """The masks that the places which answer for an image's objects draw, several an object.

    Attributes:
        logits: (P, h, w) at stride 4 of the padded input, before the sigmoid; with graph in
            training.
        objects: (P,) int64, whose mask each one is.
    """

    logits: Tensor
    objects: Tensor


@dataclass(frozen=True)
class ObjectMasks:
    """The segmenter's masks of the labeled objects, whatever they would score. An entry an image.

    Attributes:
        probs: (N_i, h, w) float32 in [0, 1] at stride 4 of the padded input, with graph in
            training; zeros for an object that it has no place for.
        drawn: (V_i,) int64, ascending, the objects that it has one for.
        scores: (N_i,) float32 in [0, 1], for the object's own class, without graph; None in
            training.
        candidates: what `probs` are the means of, where the labels want them.
    """

    probs: list[Tensor]
    drawn: list[Tensor]
    scores: list[Tensor] | None = None
    candidates: list[Candidates] | None = None


def no_losses(_objects: ObjectMasks) -> dict[str, Tensor]:
    """For a labeler without losses on the segmenter's masks."""
    return {}


def _nobody() -> Tensor:
    return torch.zeros((), dtype=torch.int64)


@dataclass(frozen=True)
class PseudoLabels:
    """The labels of a batch for the segmenter. An entry an image, a row an object of it.

    Attributes:
        classes: (N_i,) int64 in 0..K-1, on the CPU.
        assignment: (N_i, h, w) bool at stride 4 of the padded input, on the CPU: where the object
            is, for the segmenter to choose what answers for it. An empty one is left out.
        masks: (N_i, h, w) bool, or float in [0, 1], on the device: what to learn to draw.
        boxes: (N_i, 4) float32 xyxy in pixels of the padded input, on the device.
        pixel_weights: (N_i, h, w) float in [0, 1], on the device; 0 where the mask is not known.
            None counts as 1 everywhere.
        weights: (N_i,) float in [0, 1], on the device; 0 leaves the object out of the segmenter's
            losses. None counts as 1.
        further_masks: (N_i, J, h, w) bool, on the device, masks to learn beside those, together
            with the weight `further_weight`; an empty one is left out. None: there are none.
        by_candidates: the labeler itself has the loss of the masks, of each candidate; the
            segmenter hands these out, and has none.
        losses: the labeler's own terms by name, each with its weight in it.
        mask_losses: the labeler's terms for the masks that the segmenter drew of these objects.
        selection: over the bags, where the labels are proposals.
        undecided: (), how many objects the labeler had nothing to tell proposals apart by.
    """

    classes: list[Tensor]
    assignment: list[Tensor]
    masks: list[Tensor]
    boxes: list[Tensor]
    pixel_weights: list[Tensor] | None = None
    weights: list[Tensor] | None = None
    further_masks: list[Tensor] | None = None
    further_weight: float = 0.0
    by_candidates: bool = False
    losses: dict[str, Tensor] = field(default_factory=dict)
    mask_losses: Callable[[ObjectMasks], dict[str, Tensor]] = no_losses
    selection: Selection | None = None
    undecided: Tensor = field(default_factory=_nobody)
