"""A picture of 800×1333 to 100 instances: SOLOv2 as it predicts, and torchvision's Mask R-CNN."""

import torch
import torchvision
from bench_postprocess import scene
from comparison import Row, compare

from sapnet.artifact import padded
from sapnet.backbones import BackboneWithFpn
from sapnet.config import paper_r50_1x
from sapnet.data.loader import to_tensor
from sapnet.solo import SoloHead, SoloV2, decode
from sapnet.solo.ready import make_ready

CLASSES = 80


def measure(small: bool) -> list[Row]:
    """Weights are random, and what they find is noise: ours runs its network on the picture, then
    decodes a made scene of 500 candidates to the RLEs of 100 instances; Mask R-CNN delivers 100 of
    its own, as masks of full size."""
    size = (192, 320) if small else (800, 1333)
    config, draw = paper_r50_1x(), torch.Generator().manual_seed(0)
    backbone = BackboneWithFpn(config.backbone, pretrained=True, generator=draw)
    head = SoloHead(CLASSES, config.backbone.fpn_channels, config.solo, draw)
    segmenter = make_ready(SoloV2(backbone, head))
    image = torch.randint(0, 256, (*size, 3), generator=draw, dtype=torch.uint8).numpy()
    shape = padded(to_tensor(image, size)).shape[2:]
    found = scene((shape[0], shape[1]), 128, 100 if small else 500, config.solo)
    found.mask_features = found.mask_features.to(memory_format=torch.channels_last)
    peer = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size[0],
        max_size=size[1],
        box_score_thresh=0.0,
        box_nms_thresh=0.9,
    ).eval()

    @torch.inference_mode()
    def ours() -> int:
        segmenter(padded(to_tensor(image, size)).contiguous(memory_format=torch.channels_last))
        return len(decode(found, [size], [size], config.solo)[0])

    @torch.inference_mode()
    def theirs() -> int:
        (result,) = peer([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        return len(result["masks"])

    counts = ours(), theirs()
    assert small or counts == (100, 100), counts
    rounds = 1 if small else 5
    return [
        compare(
            f"inference, {size[0]}×{size[1]}, R-50, {counts[0]} instances",
            ours,
            theirs,
            against="torchvision's Mask R-CNN, R-50",
            goal=1.3,
            rounds=rounds,
            sample=0,
        )
    ]
