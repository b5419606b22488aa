"""The SOLOv2 branch: the segmenter that is trained and that remains."""

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.base import Instances
from sapnet.segmenters.solov2.decode import decode
from sapnet.segmenters.solov2.head import SoloHead, SoloOutput
from sapnet.segmenters.solov2.loss import instance_probs, solo_loss
from sapnet.segmenters.solov2.matrix_nms import matrix_nms
from sapnet.segmenters.solov2.model import SoloV2
from sapnet.segmenters.solov2.targets import SoloTargets, assign

__all__ = [
    "Instances",
    "SoloConfig",
    "SoloHead",
    "SoloOutput",
    "SoloTargets",
    "SoloV2",
    "assign",
    "decode",
    "instance_probs",
    "matrix_nms",
    "solo_loss",
]
