"""The model that stays: what every segmenter offers to training, labeling and prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sapnet.data.batch import ObjectMasks, PseudoLabels
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.types import FloatArray, Rle


@dataclass(frozen=True)
class Instances:
    """The instances of one image, by falling score.

    Attributes:
        labels: (n,) int64 in 0..K-1.
        scores: (n,) float32 in (0, 1].
        masks: n RLEs at the original size.
        boxes: (n, 4) float32, the masks' tight xyxy in its pixels.
    """

    labels: npt.NDArray[np.int64]
    scores: FloatArray
    masks: list[Rle]
    boxes: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


def as_results(instances: Instances) -> list[dict[str, Any]]:
    """`Instances` as COCO results; "label" is 0..K-1."""
    boxes = np.concatenate(
        [instances.boxes[:, :2], instances.boxes[:, 2:] - instances.boxes[:, :2]], axis=1
    )
    columns = instances.labels.tolist(), instances.scores.tolist(), instances.masks, boxes.tolist()
    return [
        {"label": label, "segmentation": mask, "bbox": box, "score": score}
        for label, score, mask, box in zip(*columns, strict=True)
    ]


class Segmenter(nn.Module):
    """Images in, instances out. A segmenter is a backbone with a pyramid, and what stands on it.

    It learns from `PseudoLabels` and knows nothing of where they come from. Its `state_dict` is
    what an artifact holds. The output of `forward` is the segmenter's own affair: others hand it
    back to `loss`, `object_masks` or `decode` as it is.

    Attributes:
        per_class: the beginnings of the names of those parameters whose rows are classes.
    """

    per_class: tuple[str, ...] = ()

    def __init__(self, backbone: BackboneWithFpn) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def out_channels(self) -> int:
        """Channels of each map of the pyramid."""
        return self.backbone.out_channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the maps of the pyramid, finest first."""
        return self.backbone.strides

    @property
    def body(self) -> nn.Module:
        """The part that may be pretrained: images to maps at strides 4, 8, 16, 32."""
        return self.backbone.body

    def forward(self, images: Tensor) -> tuple[list[Tensor], Any]:
        """images: (B, 3, H, W) as `BackboneWithFpn.forward` wants them.

        Returns:
            The pyramid, a map (B, out_channels, H / stride, W / stride) for each of `strides`, and
            the output.
        """
        raise NotImplementedError

    def loss(self, output: Any, labels: PseudoLabels) -> tuple[dict[str, Tensor], ObjectMasks]:
        """Its losses by name, weights in, and the masks that it draws of the labeled objects.

        Both have a graph, also where there is no object. Of several processes each counts its own
        share of the batch over what all of them have (`global_sum`).
        """
        raise NotImplementedError

    def object_masks(self, output: Any, labels: PseudoLabels) -> ObjectMasks:
        """The masks and scores of each labeled object."""
        raise NotImplementedError

    def pixel_features(self, output: Any) -> Tensor:
        """A vector of each pixel that tells apart what masks are drawn of, (B, D, H/4, W/4)."""
        raise NotImplementedError

    def decode(
        self,
        output: Any,
        sizes: Sequence[tuple[int, int]],
        original_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Decode the instances of each image of the batch.

        Args:
            sizes: (h, w) of each image in the network's input, without the padding, in pixels.
            original_sizes: (h, w) of the images as they were before resizing.
        """
        raise NotImplementedError

    @torch.no_grad()
    def take_weights(
        self, weights: Mapping[str, Tensor], classes: Sequence[Sequence[int]]
    ) -> list[str]:
        """Take those of another segmenter's weights that fit; the rest stays.

        Args:
            weights: by their names, of a segmenter of the same kind.
            classes: for each own label, the other's labels whose mean it takes; without any, it
                stays as it is.

        Returns:
            The names of the tensors that stay whole.
        """
        state, left = self.state_dict(), []
        for name, own in state.items():
            values = weights.get(name)
            per_class = name.startswith(self.per_class)
            if values is None or values.shape[per_class:] != own.shape[per_class:]:
                left.append(name)
            elif per_class:
                for label, sources in enumerate(classes):
                    if sources:
                        own[label] = values[list(sources)].mean(0)
            else:
                state[name] = values
        self.load_state_dict(state)
        return left
