"""The segmenter: backbone, pyramid and SOLOv2 head."""

from torch import Tensor, nn

from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.solov2.head import SoloHead, SoloOutput


class SoloV2(nn.Module):
    """Images in, features (which the MIL branch shares) and the head's output out."""

    def __init__(self, backbone: BackboneWithFpn, head: SoloHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> tuple[list[Tensor], SoloOutput]:
        """images: (B, 3, H, W) as `BackboneWithFpn.forward` wants them -> (P2..P6, output)."""
        features = self.backbone(images)
        return features, self.head(features)
