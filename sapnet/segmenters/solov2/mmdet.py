"""Models to and from mmdetection: a file that its SOLOv2 loads, and one of its files as ours.

Such a file holds {"state_dict", "meta"} and is read with `weights_only=True`. The files written
here carry our own description in their `meta` too, which mmdetection overlooks, so that nothing is
lost on the way out and back.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sapnet import __version__
from sapnet.config.overrides import override
from sapnet.config.presets import light_r50, paper_r50_1x
from sapnet.config.resolve import config_from_dict
from sapnet.config.schema import Body, Config
from sapnet.data.category_names import distinct_names
from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin
from sapnet.segmenters.checkpoint import Predictor, load_predictor, save_artifact
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet_keys import load_mmdet_state_dict, to_mmdet_state_dict
from sapnet.utils.backbone_file import RESNETS
from sapnet.utils.files import atomic_write, file_sha256

_LIGHT = (256, 2)
"""Width and depth of the towers of the light head."""
_NORMS = {"none": None, "batch": "BN", "group": "GN"}
_MASK_HEAD = "mask_head.mask_feature_head"


def export_mmdet(model: Path, out: Path) -> dict[str, Any]:
    """Write `model` (our model.pt) to `out` as a checkpoint of mmdetection's SOLOv2.

    Returns the settings that mmdetection's config must have for it to fit, by section.

    Raises:
        WeightsUnavailable: `model` cannot be read. ValueError: its backbone has no such layout.
    """
    predictor = load_predictor(model, device="cpu", ready=False)
    if predictor.meta["weights"]["kind"] == "random":
        raise ValueError("a body that began with random weights has norms that mmdetection's lacks")
    if not isinstance(predictor.segmenter, SoloV2):
        raise ValueError(f"mmdetection's SOLOv2 is no {type(predictor.segmenter).__name__}")
    state = to_mmdet_state_dict(predictor.segmenter)
    names = list(distinct_names(predictor.categories).values())
    meta = {
        "CLASSES": names,  # where version 2 looks
        "dataset_meta": {"classes": names},  # where version 3 does
        "sapnet": json.dumps(predictor.meta),
    }
    with atomic_write(out) as file:
        torch.save({"state_dict": state, "meta": meta}, file)
    return _settings(predictor)


def import_mmdet(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Write model.pt and model.json of an mmdetection SOLOv2 (ResNet-18 to 101) into `folder`.

    Depth, widths and the number of classes are read off the tensors. What no tensor tells is as
    published: grids, scale ranges, thresholds, an input of 800 pixels (448 with the light head).
    Classes bear the file's names, or numbers; their ids are 1..K. A file that `export_mmdet` wrote
    gives its model back as it was. Returns the description.

    Raises:
        WeightsUnavailable: no such checkpoint, or one of another architecture.
    """
    state, given = _read(checkpoint)
    try:
        meta = json.loads(given["sapnet"]) if "sapnet" in given else None
        if meta is None:
            origin = WeightsOrigin("file", checkpoint.name, file_sha256(checkpoint))
            meta = describe(state, given, origin)
        config = config_from_dict(meta["config"])
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        head = SoloHead(len(meta["categories"]), config.backbone.fpn_channels, config.solo)
        segmenter = SoloV2(backbone, head)
        load_mmdet_state_dict(segmenter, state)
    except (LookupError, TypeError, ValueError, RecursionError, InvalidConfig) as error:
        raise WeightsUnavailable(
            f"{checkpoint.name} is no mmdetection SOLOv2 that fits: {error}"
        ) from error
    save_artifact(folder, segmenter, meta)
    return meta


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict and the `meta` of a checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler stumbles over damaged bytes in any way it likes
        raise WeightsUnavailable(f"{path.name} cannot be read as tensors: {error}") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsUnavailable(f'{path.name} holds no "state_dict" of tensors')
    meta = content.get("meta")
    return state, meta if isinstance(meta, dict) else {}


def _config(state: Mapping[str, Tensor]) -> Config:
    """The published setting with the sizes that the tensors have."""
    kernels = state["mask_head.conv_kernel.weight"]
    if any(".conv_offset." in key for key in state):
        raise ValueError("its convolutions are deformable (DCN), which there are none of here")
    body = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    norm = "batch" if "neck.lateral_convs.0.bn.weight" in state else "none"
    values = {
        "backbone.name": resnet_name(body),
        "backbone.fpn_channels": state["neck.fpn_convs.0.conv.weight"].shape[0],
        "backbone.fpn_norm": "group" if "neck.lateral_convs.0.gn.weight" in state else norm,
        "backbone.p6": "conv" if _count(state, "neck.fpn_convs") == 5 else "pool",
        "solo.channels": kernels.shape[1],
        "solo.mask_channels": kernels.shape[0],
        "solo.stacked_convs": _count(state, "mask_head.cls_convs"),
        "solo.mask_feature_channels": state[f"{_MASK_HEAD}.conv_pred.conv.weight"].shape[1],
    }
    light = (values["solo.channels"], values["solo.stacked_convs"]) == _LIGHT
    config = replace(light_r50() if light else paper_r50_1x(), preset="mmdetection")
    for name, value in values.items():
        config = override(config, name, value)
    return config


def resnet_name(body: Mapping[str, Tensor]) -> Body:
    """The ResNet of a body's state dict. ValueError where it is none that is known."""
    blocks = _count(body, "layer3"), "layer3.0.conv3.weight" in body
    if blocks not in RESNETS:
        kind = "bottlenecks" if blocks[1] else "basic blocks"
        raise ValueError(f"its backbone has {blocks[0]} {kind} in stage 3: no ResNet-18 to 101")
    return cast(Body, RESNETS[blocks])


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of modules in a list of them."""
    inside = (key.removeprefix(f"{prefix}.") for key in state if key.startswith(f"{prefix}."))
    return len({key.split(".")[0] for key in inside})


def _names(meta: Mapping[str, Any], count: int) -> list[str]:
    """The names of the classes, where the file has as many as there are classes."""
    inner = meta.get("dataset_meta")
    given = inner.get("classes") if isinstance(inner, dict) else meta.get("CLASSES")
    if isinstance(given, list | tuple) and len(given) == count:
        return [str(name) for name in given]
    return [str(number) for number in range(1, count + 1)]


def describe(
    state: Mapping[str, Tensor], meta: Mapping[str, Any], origin: WeightsOrigin
) -> dict[str, Any]:
    """The description, as model.json has it, of an mmdetection SOLOv2.

    Args:
        state: its tensors under mmdetection's names.
        meta: of the checkpoint.
        origin: the file.

    Raises:
        LookupError: a tensor is missing. ValueError: it is no such SOLOv2.
    """
    config = _config(state)
    names = _names(meta, len(state["mask_head.conv_cls.bias"]))
    return {
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
        "config": config.to_dict(),
        "weights": asdict(origin),
        "versions": {"sapnet": __version__},
    }


def _settings(predictor: Predictor) -> dict[str, Any]:
    """The settings of mmdetection's model config that may differ from SOLOv2's."""
    backbone, solo = predictor.config.backbone, predictor.config.solo
    norm = _NORMS[backbone.fpn_norm]
    groups = {"num_groups": 32} if norm == "GN" else {}
    return {
        "backbone": {"depth": int(backbone.name.removeprefix("resnet"))},
        "neck": {
            "in_channels": list(predictor.segmenter.backbone.body.channels),
            "out_channels": backbone.fpn_channels,
            "norm_cfg": {"type": norm, **groups} if norm else None,
            "add_extra_convs": "on_output" if backbone.p6 == "conv" else False,
        },
        "mask_head": {
            "num_classes": len(predictor.categories),
            "in_channels": backbone.fpn_channels,
            "feat_channels": solo.channels,
            "stacked_convs": solo.stacked_convs,
            "num_grids": list(solo.num_grids),
            "scale_ranges": [list(bounds) for bounds in solo.scale_ranges],
            "pos_scale": solo.center_region,
            "mask_feature_head": {
                "feat_channels": solo.mask_feature_channels,
                "out_channels": solo.mask_channels,
            },
        },
    }
