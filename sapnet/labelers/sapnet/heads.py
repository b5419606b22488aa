"""RoI features shared by both stages, and the layers that each stage has of its own."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.labelers.sapnet.roi_align import Pyramid
from sapnet.labelers.sapnet.self_distillation import CompletenessHead

RESOLUTION = 7


class RoiFeatures(nn.Module):
    """RoIAlign 7×7 on one FPN level a box, then two FC with ReLU (ALGORITHM: "Features")."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        strides: tuple[int, ...],
        normalize: bool = False,
        sampling: int = 2,
    ) -> None:
        super().__init__()
        self.sampling = sampling
        self.strides = strides
        self.normalize = normalize
        self.fc1 = nn.Linear(in_channels * RESOLUTION**2, channels)
        self.fc2 = nn.Linear(channels, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def pyramid(self, levels: list[Tensor]) -> Pyramid:
        """The table that `forward` takes RoIs from, of FPN maps (B, C, h, w), finest first."""
        return Pyramid(levels, self.strides)

    def forward(self, pyramid: Pyramid, rois: Tensor) -> Tensor:
        """Features of RoIs.

        Args:
            pyramid: of the batch.
            rois: (R, 5) batch index and xyxy in input pixels.

        Returns:
            (R, D), with `normalize` of L2 norm sqrt(D).
        """
        which = self.level_of(rois[:, 1:])
        pooled = pyramid.roi_align(rois, which, RESOLUTION, self.sampling)
        features = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        if self.normalize:
            features = F.normalize(features, dim=1) * math.sqrt(features.shape[1])
        return features

    def level_of(self, boxes: Tensor) -> Tensor:
        """floor(log2(sqrt(area) / 56)), clamped to the levels there are. (R, 4) -> (R,) int64."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        level = torch.log2(side.clamp(min=1e-6) / 56).floor().long()
        return level.clamp(0, len(self.strides) - 1)


class StageHead(nn.Module):
    """Class (K+1, the last is background), instance (K) and completeness layers of one stage."""

    def __init__(self, *, channels: int, num_classes: int, completeness_top_k: int = 3) -> None:
        super().__init__()
        self.classify = nn.Linear(channels, num_classes + 1)
        self.instance = nn.Linear(channels, num_classes)
        self.complete = CompletenessHead(channels=channels, top_k=completeness_top_k)
        for layer in (self.classify, self.instance, self.complete.fc):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
