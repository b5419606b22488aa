"""The proof that all parts fit: true masks of eight photographs, learned by heart, found again."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.resolve import resolve_config
from sapnet.data.annotations.ground_truth import as_rle, read_truth
from sapnet.data.images import read_rgb
from sapnet.data.samples import input_size, to_tensor
from sapnet.evaluation import average_precision
from sapnet.segmenters.backbones import build_backbone
from sapnet.segmenters.base import as_results
from sapnet.segmenters.solov2 import SoloHead, SoloTargets, SoloV2, assign, decode, solo_loss

SHARED = Path(__file__).parents[3].parent / "shared"
# landscapes of 4 to 10 objects, 50 in all, 18 classes, side by side and one before the other
PHOTOGRAPHS = (13473, 155125, 155299, 158647, 283666, 411666, 419173, 487434)
STEPS, BATCH, RATE, WARMUP = 80, 4, 5e-4, 10


@dataclass
class Example:
    """One photograph, resized and padded to the size of all. masks: (N, h, w) bool, stride 4."""

    image: Tensor
    masks: Tensor
    targets: SoloTargets
    content: tuple[int, int]
    original: tuple[int, int]


def real_data() -> Path:
    root = os.environ.get("SAPNET_TEST_DATA")
    folder = (Path(root) if root else SHARED / "data") / "coco96"
    if not folder.is_dir():
        pytest.skip("real data coco96 is not here; SAPNET_TEST_DATA names its folder")
    return folder


def imagenet_weights(data: Path) -> Path:
    file = data.parents[1] / "weights" / "mobilenet_v2-imagenet-fp16.pt"
    if not file.is_file():
        pytest.skip("no ImageNet weights in weights/ beside the folder of SAPNET_TEST_DATA")
    return file


def load(folder: Path, truth: dict, info: dict, labels: dict[int, int], config) -> Example:
    size = info["height"], info["width"]
    content = input_size(size, 256, 384)
    image = torch.zeros(3, 256, 384)
    pixels = to_tensor(read_rgb(folder / "images" / info["file_name"]), content)
    image[:, : content[0], : content[1]] = pixels
    own = [a for a in truth["annotations"] if a["image_id"] == info["id"]]
    full = [coco_mask.decode(as_rle(a["segmentation"], *size)) for a in own]
    grid = tuple(-(-side // 4) for side in content)
    stack = torch.stack([torch.from_numpy(mask).float() for mask in full])
    masks = torch.zeros(len(own), 64, 96, dtype=torch.bool)
    masks[:, : grid[0], : grid[1]] = F.interpolate(stack[None], size=grid, mode="area")[0] >= 0.5
    classes = torch.tensor([labels[a["category_id"]] for a in own])
    targets = assign(masks, classes, config, len(labels))
    return Example(image, masks, targets, content, size)


def learn(model: SoloV2, examples: list[Example], config) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.01
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP)
    cool = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS - WARMUP)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [WARMUP])
    for step in range(STEPS):
        if step % (len(examples) // BATCH) == 0:
            order = torch.randperm(len(examples), generator=generator).split(BATCH)
        batch = [examples[i] for i in order[step % len(order)]]
        _, output = model(torch.stack([e.image for e in batch]))
        targets, masks = [e.targets for e in batch], [e.masks for e in batch]
        losses, _ = solo_loss(output, targets, masks, config)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def find(model: SoloV2, examples: list[Example], categories: list[int], config) -> list[dict]:
    results = []
    for image_id, example in zip(PHOTOGRAPHS, examples, strict=True):
        _, output = model(example.image[None])
        (instances,) = decode(output, [example.content], [example.original], config)
        for result in as_results(instances):
            category = categories[result.pop("label")]
            results.append({**result, "image_id": image_id, "category_id": category})
    return results


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 75 s of one core, more where it is shared
def test_eight_photographs_learned_by_heart():
    """The `cpu` preset's SOLOv2 on ImageNet's MobileNetV2, forty passes: AP50 of 0.9 and more."""
    folder = real_data()
    weights = imagenet_weights(folder)
    truth = read_truth(folder / "instances.json")
    truth["images"] = [i for i in truth["images"] if i["id"] in PHOTOGRAPHS]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in PHOTOGRAPHS]
    categories = sorted({a["category_id"] for a in truth["annotations"]})
    truth["categories"] = [c for c in truth["categories"] if c["id"] in categories]
    labels = {category: label for label, category in enumerate(categories)}
    config = resolve_config(body="mobilenet_v2")
    info = {i["id"]: i for i in truth["images"]}
    examples = [load(folder, truth, info[i], labels, config.solo) for i in PHOTOGRAPHS]
    assert sum(len(e.targets.instances.unique()) for e in examples) == 50

    generator = torch.Generator().manual_seed(0)
    backbone, _ = build_backbone(config.backbone, weights, generator=generator)
    head = SoloHead(len(categories), backbone.out_channels, config.solo, generator)
    model = SoloV2(backbone, head)
    learn(model, examples, config.solo)
    figures = average_precision(find(model, examples, categories, config.solo), truth)
    assert figures["AP50"] is not None
    assert figures["AP50"] >= 0.9
    assert figures["AP75"] >= 0.6
