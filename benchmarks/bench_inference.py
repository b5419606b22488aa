"""An image of 800×1333 to 100 instances: SOLOv2 as it predicts, and torchvision's Mask R-CNN."""

from collections.abc import Callable

import torch
import torchvision
from bench_postprocess import scene
from comparison import Row, compare

from sapnet.config.presets import paper_r50_1x
from sapnet.data.samples import to_tensor
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.checkpoint import padded
from sapnet.segmenters.solov2 import SoloHead, SoloOutput, SoloV2, decode
from sapnet.segmenters.solov2.optimize import make_ready
from sapnet.utils.precision import mixed

CLASSES = 80


def work(small: bool, device: str) -> tuple[Callable[[], int], Callable[[], int]]:
    """Ours and the peer's, each to the number of its instances. Weights are random, and what they
    find is noise: ours runs its network on the image, then decodes a made scene of 500 candidates
    to the RLEs of 100 instances; Mask R-CNN delivers 100 of its own, as masks of full size."""
    size = (192, 320) if small else (800, 1333)
    config, draw = paper_r50_1x(), torch.Generator().manual_seed(0)
    backbone = BackboneWithFpn(config.backbone, pretrained=True, generator=draw)
    head = SoloHead(CLASSES, config.backbone.fpn_channels, config.solo, draw)
    segmenter = make_ready(SoloV2(backbone, head).to(device))
    image = torch.randint(0, 256, (*size, 3), generator=draw, dtype=torch.uint8).numpy()
    shape = padded(to_tensor(image, size)).shape[2:]
    made = scene((shape[0], shape[1]), 128, 100 if small else 500, config.solo)
    found = SoloOutput(
        [level.to(device) for level in made.cls_logits],
        [level.to(device) for level in made.kernels],
        made.mask_features.to(device, memory_format=torch.channels_last),
    )
    peer = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size[0],
        max_size=size[1],
        box_score_thresh=0.0,
        box_nms_thresh=0.9,
    )
    peer.to(device).eval()
    where = torch.device(device)

    @torch.inference_mode()
    def network() -> SoloOutput:
        pixels = padded(to_tensor(image, size)).to(where, memory_format=torch.channels_last)
        with mixed(where, "auto"):
            return segmenter(pixels)[1]

    def ours() -> int:
        network()
        return len(decode(found, [size], [size], config.solo)[0])

    decode(network(), [size], [size], config.solo)  # what it finds is noise, and goes through

    @torch.inference_mode()
    def theirs() -> int:
        pixels = torch.from_numpy(image).to(where).permute(2, 0, 1).float() / 255
        with mixed(where, "auto"):
            (result,) = peer([pixels])
        return len(result["masks"])

    return ours, theirs


def measure(small: bool) -> list[Row]:
    ours, theirs = work(small, "cpu")
    counts = ours(), theirs()
    assert small or counts == (100, 100), counts
    return [
        compare(
            f"inference, {'192×320' if small else '800×1333'}, R-50, {counts[0]} instances",
            ours,
            theirs,
            against="torchvision's Mask R-CNN, R-50",
            goal=1.3,
            rounds=1 if small else 5,
            sample=0,
        )
    ]
