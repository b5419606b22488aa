"""A training step, two images of 512² with 15 objects each: SAPNet++ on R-50 and torchvision's
Mask R-CNN; and what its parts beside the segmenter add to the step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comparison import Row, compare
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d, masks_to_boxes

from sapnet.config.resolve import resolve_config
from sapnet.data.masks import encode_all as encode
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample, make_record
from sapnet.proposals.bags import bag_of
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.training.loop import make_fast
from sapnet.training.model import assemble
from sapnet.training.optim import make_optimizer
from sapnet.training.step import training_step
from sapnet.types import ImageInfo, PointAnnotation
from sapnet.utils.precision import mixed

CLASSES = 80
GROWTH = (1.0, 0.4, 0.55, 0.7, 0.85, 1.15, 1.3, 1.5)  # an object's proposals: it, parts, too large
LATE = Step(index=900, total=1000, per_epoch=100)  # every term has set in


class Scene:
    """Ellipses in colours of their own. image: (3, side, side) in [0, 1]. masks: (N, side, side)
    bool. sample: the same as training sees it, with a bag of eight for each."""

    def __init__(self, seed: int, side: int, count: int) -> None:
        draw = np.random.default_rng(seed)
        middle = draw.uniform(0.1 * side, 0.9 * side, (count, 2, 1, 1))
        radii = side * np.exp(draw.uniform(-3.5, -1.5, (count, 2, 1, 1)))
        y, x = np.mgrid[:side, :side] + 0.5
        away = ((y - middle[:, 0]) / radii[:, 0]) ** 2 + ((x - middle[:, 1]) / radii[:, 1]) ** 2
        pixels = np.full((3, side, side), 0.4)
        for near in away:
            pixels[:, near <= 1] = draw.uniform(0, 1, (3, 1))
        pixels = (pixels + 0.05 * draw.normal(size=pixels.shape)).clip(0, 1)
        self.image = torch.from_numpy(pixels.astype(np.float32))
        self.masks = torch.from_numpy(away <= 1)
        self.labels = torch.from_numpy(draw.integers(0, CLASSES, count))
        points = [
            PointAnnotation(n, seed, int(label), float(xy[1, 0, 0]), float(xy[0, 0, 0]))
            for n, (xy, label) in enumerate(zip(middle, self.labels, strict=True))
        ]
        scores = np.linspace(0.9, 0.5, len(GROWTH)).astype(np.float32)
        bags = [
            bag_of(n, encode(near <= np.square(GROWTH)[:, None, None]), scores, ["made"] * 8)
            for n, near in enumerate(away)
        ]
        info = ImageInfo(seed, "", side, side)
        labels = {label: label for label in range(CLASSES)}
        record = make_record(info, Path(), points, bags, labels)
        self.sample = Sample(record, 4 * self.image - 2, (1.0, 1.0), False)

    def target(self) -> dict[str, Tensor]:
        """What Mask R-CNN learns from: the masks themselves."""
        boxes = masks_to_boxes(self.masks) + torch.tensor([0, 0, 1, 1])
        return {"boxes": boxes.float(), "labels": self.labels + 1, "masks": self.masks.byte()}


def ours(
    scenes: list[Scene], method: str, device: str, small: bool, compile_it: bool = False
) -> Callable[[], object]:
    """A step of a method, as training does it."""
    narrow = {"solo.channels": 96, "solo.mask_channels": 64, "mil.fc_channels": 64}
    config = resolve_config(method, "paper_r50_1x", narrow if small else None)
    backbone = BackboneWithFpn(config.backbone, pretrained=True)
    model = assemble(config, CLASSES, backbone, 0).to(device).train()
    make_fast(model)
    optimizer = make_optimizer(model, config.train)
    generators = [torch.Generator().manual_seed(n) for n in range(len(scenes))]
    samples = [scene.sample for scene in scenes]
    if compile_it:
        model.segmenter.forward = torch.compile(model.segmenter.forward)
    return partial(training_step, model, optimizer, samples, LATE, generators)


def peer(scenes: list[Scene], device: str) -> Callable[[], object]:
    """Frozen as ours is: its batch norms, and all up to the first stage."""
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    side = scenes[0].image.shape[1]
    model = MaskRCNN(_resnet_fpn_extractor(body, 3), CLASSES + 1, min_size=side, max_size=side)
    model.to(device).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    images = [scene.image.to(device) for scene in scenes]
    targets = [{k: v.to(device) for k, v in scene.target().items()} for scene in scenes]

    def step() -> None:
        with mixed(torch.device(device), "auto"):
            losses = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def measure(small: bool) -> list[Row]:
    side, count = (128, 4) if small else (512, 15)
    torch.manual_seed(0)
    scenes = [Scene(seed, side, count) for seed in range(2)]
    whole, solo = (ours(scenes, method, "cpu", small) for method in ("sapnet++", "consensus"))
    with_them = f"training step, R-50, 2 × {side}², {count} objects each"
    row = partial(compare, rounds=1 if small else 7, sample=0)
    theirs, against = peer(scenes, "cpu"), "torchvision's Mask R-CNN, R-50, from true masks"
    return [
        row(with_them, whole, theirs, against=against, goal=1.2),
        row(f"{with_them}, segmenter alone", solo, theirs, against=against),
        row(
            "the whole step by its segmenter's alone",
            whole,
            solo,
            against="the same step without MIL, SASD, PNPG, MLAR",
            goal=round(1 / 1.35, 2),
        ),
    ]
