"""The SOLOv2 branch: the segmenter that is trained and that remains."""

from sapnet.config import SoloConfig
from sapnet.solo.decode import Instances, decode
from sapnet.solo.head import SoloHead, SoloOutput
from sapnet.solo.loss import instance_probs, solo_loss
from sapnet.solo.matrix_nms import matrix_nms
from sapnet.solo.model import SoloV2
from sapnet.solo.targets import SoloTargets, assign

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
