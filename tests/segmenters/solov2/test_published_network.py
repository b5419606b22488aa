"""The whole network again, as plain functions of a state dict in mmdetection's layout.

Written from the documented modules (ResNet in PyTorch's style, FPN, SOLOV2Head), so that a key
means here what it means there: which tower it belongs to, where coordinates join, what is resized.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet_keys import to_mmdet_state_dict


def frozen_bn(state, name, x):
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=1e-5)


def bottleneck(state, name, x, stride):
    out = frozen_bn(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
    out = F.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
    out = frozen_bn(state, f"{name}.bn2", out).relu()
    out = frozen_bn(state, f"{name}.bn3", F.conv2d(out, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = frozen_bn(state, f"{name}.downsample.1", x)
    return (out + x).relu()


def basic_block(state, name, x, stride):
    out = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = frozen_bn(state, f"{name}.bn1", out).relu()
    out = frozen_bn(state, f"{name}.bn2", F.conv2d(out, state[f"{name}.conv2.weight"], padding=1))
    if f"{name}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = frozen_bn(state, f"{name}.downsample.1", x)
    return (out + x).relu()


def resnet(state, x, blocks):
    make = bottleneck if "backbone.layer1.0.conv3.weight" in state else basic_block
    x = F.conv2d(x, state["backbone.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(frozen_bn(state, "backbone.bn1", x).relu(), 3, stride=2, padding=1)
    features = []
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            x = make(state, f"backbone.layer{stage}.{block}", x, stride)
        features.append(x)
    return features


def neck(state, features, p6):
    def conv(name, x, **options):
        x = F.conv2d(x, state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias"), **options)
        return group_norm(state, name, x) if f"{name}.gn.weight" in state else x

    rows = [conv(f"neck.lateral_convs.{i}", x) for i, x in enumerate(features)]
    for i in (2, 1, 0):
        rows[i] = rows[i] + F.interpolate(rows[i + 1], size=rows[i].shape[2:], mode="nearest")
    out = [conv(f"neck.fpn_convs.{i}", x, padding=1) for i, x in enumerate(rows)]
    if p6 == "pool":
        return [*out, F.max_pool2d(out[3], 1, stride=2)]
    return [*out, conv("neck.fpn_convs.4", out[3], stride=2, padding=1)]


def group_norm(state, name, x):
    return F.group_norm(x, 32, state[f"{name}.gn.weight"], state[f"{name}.gn.bias"])


def conv_module(state, name, x):
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return group_norm(state, name, x).relu()


def join_coordinates(x):
    batch, _, height, width = x.shape
    joined = x.new_zeros(batch, 2, height, width)
    for i in range(height):
        for j in range(width):
            joined[:, 0, i, j] = 2 * j / (width - 1) - 1 if width > 1 else -1
            joined[:, 1, i, j] = 2 * i / (height - 1) - 1 if height > 1 else -1
    return torch.cat((x, joined), 1)


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def mask_features(state, pyramid):
    prefix = "mask_head.mask_feature_head"
    total = conv_module(state, f"{prefix}.convs_all_levels.0.conv0", pyramid[0])
    for level in (1, 2, 3):
        x = join_coordinates(pyramid[3]) if level == 3 else pyramid[level]
        for i in range(level):
            x = conv_module(state, f"{prefix}.convs_all_levels.{level}.conv{i}", x)
            x = resized(x, (2 * x.shape[2], 2 * x.shape[3]))
        total = total + x
    return conv_module(state, f"{prefix}.conv_pred", total)


def grids(state, pyramid, num_grids, depth):
    resampled = [
        resized(pyramid[0], pyramid[1].shape[2:]),
        *pyramid[1:4],
        resized(pyramid[4], pyramid[3].shape[2:]),
    ]
    classes, kernels = [], []
    for x, grid in zip(resampled, num_grids, strict=True):
        kernel = resized(join_coordinates(x), (grid, grid))
        cls = kernel[:, :-2]
        for i in range(depth):
            cls = conv_module(state, f"mask_head.cls_convs.{i}", cls)
            kernel = conv_module(state, f"mask_head.kernel_convs.{i}", kernel)
        for out, x, name in ((classes, cls, "cls"), (kernels, kernel, "kernel")):
            key = f"mask_head.conv_{name}"
            out.append(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1))
    return classes, kernels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "norm", "p6"),
    [
        ("resnet50", (3, 4, 6, 3), "none", "pool"),
        ("resnet18", (2, 2, 2, 2), "none", "pool"),
        ("resnet34", (3, 4, 6, 3), "group", "conv"),
    ],
)
def test_the_same_output_from_the_keys_alone(small, generator, name, blocks, norm, p6):
    small = replace(small, stacked_convs=2, mask_channels=32, mask_feature_channels=32)
    config = BackboneConfig(name, fpn_channels=32, fpn_norm=norm, p6=p6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SoloV2(BackboneWithFpn(config, pretrained=True), SoloHead(3, 32, small)).double()
    for key, value in model.state_dict().items():  # no norm, bias or statistic stays neutral
        if value.is_floating_point() and value.ndim == 1:
            value.add_(0.2 * torch.rand(value.shape, generator=generator))
            if "running_var" in key or "bn3" in key or (name != "resnet50" and "bn2" in key):
                value.mul_(0.5)
    image = torch.randn(2, 3, 64, 128, generator=generator).double()
    state = to_mmdet_state_dict(model)
    with torch.no_grad():
        features, output = model(image)
        pyramid = neck(state, resnet(state, image, blocks), p6)
        classes, kernels = grids(state, pyramid, small.num_grids, 2)
        masks = mask_features(state, pyramid)
    got = [*features, *output.cls_logits, *output.kernels, output.mask_features]
    for ours, theirs in zip(got, [*pyramid, *classes, *kernels, masks], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert masks.std() > 0.1
    assert kernels[0].std() > 0.01
