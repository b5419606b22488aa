"""The head's shapes, its coordinates, its start, and that it can learn one image."""

from dataclasses import replace

import pytest
import torch

from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.segmenters.solov2 import (
    SoloConfig,
    SoloHead,
    SoloV2,
    assign,
    decode,
    instance_probs,
    solo_loss,
)
from sapnet.segmenters.solov2.head import with_coordinates


def pyramid(batch, channels, height, width, generator):
    return [
        torch.randn(batch, channels, height // s, width // s, generator=generator)
        for s in (4, 8, 16, 32, 64)
    ]


@pytest.mark.parametrize("classes", [1, 5])
def test_shapes(small, generator, classes):
    head = SoloHead(classes, 8, small, generator)
    out = head(pyramid(2, 8, 128, 64, generator))
    assert [tuple(c.shape) for c in out.cls_logits] == [(2, classes, s, s) for s in small.num_grids]
    assert [tuple(k.shape) for k in out.kernels] == [(2, 16, s, s) for s in small.num_grids]
    assert out.mask_features.shape == (2, 16, 32, 16)
    assert (out.mask_features >= 0).all()


def test_flat_cells_are_level_by_level_and_row_by_row(make_output, small):
    output = make_output(2, 3)
    flat = output.flat_cls_logits()
    start = 0
    for level, grid in zip(output.cls_logits, small.num_grids, strict=True):
        assert torch.equal(flat[1, start + grid + 1], level[1, :, 1, 1])
        start += grid * grid
    assert flat.shape == (2, start, 3)


def test_coordinates_run_from_minus_one_to_one():
    out = with_coordinates(torch.zeros(2, 3, 4, 5))
    assert out.shape == (2, 5, 4, 5)
    assert out[1, 3, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.allclose(out[0, 4, :, 2], torch.tensor([-1, -1 / 3, 1 / 3, 1]))


def test_every_score_starts_low(small, generator):
    out = SoloHead(3, 8, small, generator)(pyramid(1, 8, 64, 64, generator))
    scores = torch.cat([c.sigmoid().flatten() for c in out.cls_logits])
    assert 0.003 < scores.min() <= scores.max() < 0.03


def test_the_generator_decides_the_start(small):
    heads = [SoloHead(2, 8, small, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    states = [torch.cat([v.flatten() for v in h.state_dict().values()]) for h in heads]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_refuses_no_class(small):
    with pytest.raises(ValueError, match="num_classes"):
        SoloHead(0, 8, small)


def overfit(steps, size, spans, config, width):
    """Train on one image of plain rectangles; -> (its IoUs by own cells, by decoding)."""
    generator = torch.Generator().manual_seed(0)
    backbone = BackboneWithFpn(
        BackboneConfig("mobilenet_v2", fpn_channels=width), pretrained=False, generator=generator
    )
    model = SoloV2(backbone, SoloHead(2, width, config, generator))
    image = torch.randn(1, 3, size, size, generator=generator) * 0.1
    masks = torch.zeros(len(spans), size // 4, size // 4, dtype=torch.bool)
    labels = torch.arange(len(spans)) % 2
    for mask, label, (top, bottom, left, right) in zip(masks, labels, spans, strict=True):
        mask[top:bottom, left:right] = True
        image[0, label, 4 * top : 4 * bottom, 4 * left : 4 * right] += 2
    targets = assign(masks, labels, config, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        _, output = model(image)
        losses, _ = solo_loss(output, [targets], [masks], config)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        _, output = model.eval()(image)
        probs = instance_probs(output, 0, targets, len(masks))
    assert len(targets.answered) == len(masks)
    found = probs > 0.5
    iou = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
    (instances,) = decode(output, [(size, size)], [(size, size)], config)
    return iou, instances, labels


@pytest.mark.slow
def test_learns_one_tiny_image(small):
    spans = [(2, 8, 1, 7), (8, 15, 8, 14)]
    config = replace(small, score_threshold=0.05)
    iou, _, _ = overfit(40, 64, spans, config, 32)
    assert iou.min() > 0.6


@pytest.mark.slow
def test_learns_one_image_and_finds_its_objects():
    config = SoloConfig(
        num_grids=(20, 16, 12, 8, 6),
        scale_ranges=((1, 32), (16, 64), (32, 96), (64, 128), (96, 2048)),
        channels=64,
        stacked_convs=2,
        mask_channels=32,
        mask_feature_channels=32,
    )
    spans = [(2, 9, 2, 9), (12, 30, 3, 12), (4, 10, 20, 30), (20, 27, 18, 25), (26, 32, 26, 32)]
    iou, instances, labels = overfit(200, 128, spans, config, 64)
    assert iou.min() > 0.9
    sure = instances.labels[instances.scores > 0.5]
    assert sorted(sure.tolist()) == sorted(labels.tolist())
