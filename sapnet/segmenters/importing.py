"""Models from outside: our own file, mmdetection's SOLOv2, safetensors, a backbone's state dict.

Nothing in a file is run, and what it claims is checked before any of it is built: sizes
(`sapnet.utils.tensor_file`), settings, the shape of each tensor, that values are finite.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sapnet import __version__
from sapnet.config.presets import cpu, paper_r50_1x
from sapnet.config.resolve import check_config, config_from_dict
from sapnet.config.schema import BackboneConfig, Body, Config
from sapnet.data.tiles import TrainedSizes
from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin
from sapnet.segmenters.backbones.lite0 import own_names
from sapnet.segmenters.backbones.weights import ORIGINS, exactly, without_classifier
from sapnet.segmenters.build import SegmenterBuilder, build_segmenter
from sapnet.segmenters.checkpoint import BODY, PART, read_content, save_weights
from sapnet.segmenters.solov2 import mmdet
from sapnet.segmenters.solov2.mmdet_keys import from_mmdet_key
from sapnet.utils import tensor_file
from sapnet.utils.files import file_sha256

LONGEST_NAME = 200
_MAX_CLASSES = 10_000
_MOST = {
    "backbone.fpn_channels": 2_048,
    "solo.channels": 4_096,
    "solo.stacked_convs": 16,
    "solo.mask_channels": 4_096,
    "solo.mask_feature_channels": 4_096,
    "solo.num_grids": 200,
    "solo.nms_pre": 5_000,
    "solo.max_instances": 5_000,
    "data.short_sides": 4_096,
    "data.max_long_side": 8_192,
}
"""Of the settings that memory and time of a prediction depend on: who sends a file chooses them."""
_KEPT = ("categories", "config", "weights", "seed", "pixel_ranges", "images", "annotations")
_BODY_OF = {
    "features.0.0.weight": "mobilenet_v2",
    "net.stages.0.0.depthwise.1.weight": "efficientnet_lite0",
    "layer3.0.conv1.weight": "resnet",
}
_UNKNOWN = (
    "it holds neither a model of this project, nor mmdetection's SOLOv2, nor the state dict of a "
    "backbone (ResNet-18 to 101 or MobileNetV2, under torchvision's names, or EfficientNet-Lite0)"
)


@dataclass(frozen=True)
class ImportedModel:
    """What a file holds.

    Attributes:
        state: weights by the names of a segmenter here; those of `backbone.body.` alone where the
            file is a backbone's.
        meta: its description, as model.json has it.
    """

    state: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def config(self) -> Config:
        """The settings that its segmenter was built with."""
        return config_from_dict(self.meta["config"])


def import_model(path: Path, folder: Path, name: str | None = None) -> dict[str, Any]:
    """Write model.pt, model.safetensors and model.json of any file that `read_model` takes.

    Args:
        path: of the file.
        folder: where they go.
        name: of the file, for people; its own by default.

    Returns:
        The content of model.json.

    Raises:
        WeightsUnavailable: see `read_model`. Nothing is written then.
    """
    model = read_model(path, name)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder, model.state, model.meta)
    return model.meta


def read_model(
    path: Path, name: str | None = None, build: SegmenterBuilder = build_segmenter
) -> ImportedModel:
    """Read a model from outside, whole and checked.

    Args:
        path: of the file.
        name: of the file, for people; its own by default.
        build: makes the segmenter that the weights must fit.

    Raises:
        WeightsUnavailable: it is missing, damaged, unsafe, or no model that is known here.
    """
    name = name or path.name
    try:
        tensor_file.check(path)
        content = read_content(path)
        state, given = _parts(content)
        model = _model(state, given, WeightsOrigin("file", name, file_sha256(path)), build)
        _check_values(model.state)
        return model
    except OSError as error:
        raise WeightsUnavailable(f"{name} cannot be read: {error.strerror or error}") from error
    except (
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        RecursionError,
        InvalidConfig,
        WeightsUnavailable,
    ) as error:
        raise WeightsUnavailable(f"{name} was not taken: {error}") from error


def _parts(content: Any) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a file by their names, and what is said about them."""
    if not isinstance(content, dict):
        raise ValueError("it is no state dict (names to tensors)")
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("it is no state dict (names to tensors)")
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{key[:100]!r} is no plain tensor")
    return state, content.get("meta") if state is not content else None


def _model(
    state: dict[str, Tensor], given: Any, origin: WeightsOrigin, build: SegmenterBuilder
) -> ImportedModel:
    about = given.get("sapnet") if isinstance(given, dict) else given
    is_mmdet = "mask_head.conv_kernel.weight" in state
    if isinstance(about, str):  # ours, or a file of ours in mmdetection's layout
        meta = _checked(json.loads(about))
    elif is_mmdet:
        meta = _checked(mmdet.describe(state, given or {}, origin))
    else:
        return _body(state, origin)
    if meta.get(PART) == BODY:
        return _body(_inner(state, "backbone.body."), WeightsOrigin(**meta["weights"]))
    if is_mmdet:
        state = {from_mmdet_key(key): value for key, value in state.items()}
    config = config_from_dict(meta["config"])
    classes = len(meta["categories"])
    with torch.device("meta"):  # shapes alone: what the file claims is not believed yet
        backbone = BackboneWithFpn(config.backbone, pretrained=meta["weights"]["kind"] != "random")
        segmenter = build(config, classes, backbone)
    return ImportedModel(exactly(segmenter, state, "what it holds"), meta)


def _body(state: dict[str, Tensor], origin: WeightsOrigin) -> ImportedModel:
    """A backbone's state dict: its own, or that inside of a larger network."""
    for prefix in ("", "backbone.body.", "backbone.", "module."):
        inner = own_names(without_classifier(_inner(state, prefix)))
        kind = next((kind for key, kind in _BODY_OF.items() if key in inner), None)
        if kind is not None:
            break
    else:
        raise ValueError(_UNKNOWN)
    backbone = BackboneConfig(cast(Body, mmdet.resnet_name(inner) if kind == "resnet" else kind))
    with torch.device("meta"):
        body = BackboneWithFpn(backbone, pretrained=True).body
    weights = exactly(body, inner, "what it holds")
    preset = paper_r50_1x() if kind == "resnet" else cpu()
    meta = {
        PART: BODY,
        "categories": [],
        "config": {**preset.to_dict(), "preset": "backbone", "backbone": _fields(backbone)},
        "weights": asdict(origin),
        "versions": {"sapnet": __version__},
    }
    return ImportedModel({f"backbone.body.{key}": v for key, v in weights.items()}, meta)


def _fields(backbone: BackboneConfig) -> dict[str, Any]:
    fields: dict[str, Any] = Config(backbone=backbone).to_dict()["backbone"]
    return fields


def _inner(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_values(state: Mapping[str, Tensor]) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not math.isfinite(value.sum(dtype=torch.float64)):
            raise ValueError(f"{key} holds values that are not finite")


def _checked(meta: Any) -> dict[str, Any]:
    """A description of which every part is as it should be; what is unknown is left out."""
    if not isinstance(meta, dict):
        raise ValueError("its description is no object")
    kept = {key: meta[key] for key in (*_KEPT, PART) if key in meta}
    config = config_from_dict(meta["config"])
    check_config(config, _MOST)
    categories = [_category(c["id"], c["name"]) for c in meta["categories"]]
    ids = {category["id"] for category in categories}
    if len(ids) != len(categories) or len(ids) > _MAX_CLASSES:
        raise ValueError(f"its {len(categories):,} classes are not told apart by their ids")
    origin = WeightsOrigin(**meta["weights"])
    texts = (origin.detail, origin.sha256 or "", origin.model or "")
    if origin.kind not in ORIGINS or not all(
        isinstance(text, str) and len(text) <= 2_000 for text in texts
    ):
        raise ValueError("the origin of its weights cannot be read")
    numbers = [kept.get(key, 0) for key in ("seed", "images", "annotations")]
    if not all(isinstance(n, int) and 0 <= n < 1 << 63 for n in numbers):
        raise ValueError("its seed and its counts are not whole numbers")
    ranges = kept.get("pixel_ranges") or {}
    bounds = [bound for pair in ranges.values() for bound in pair]
    if len(bounds) != 2 * len(ranges) or not all(math.isfinite(bound) for bound in bounds):
        raise ValueError("its ranges of pixel values cannot be read")
    if (sizes := TrainedSizes.from_meta(meta)) is not None:
        kept["image_sizes"] = sizes.to_meta()
    versions = meta.get("versions")
    if isinstance(versions, dict):
        kept["versions"] = {str(k)[:100]: str(v)[:100] for k, v in list(versions.items())[:20]}
    return {**kept, "categories": categories, "config": config.to_dict()}


def _category(id_: Any, name: Any) -> dict[str, Any]:
    if isinstance(id_, bool) or not isinstance(id_, int) or abs(id_) >= 1 << 63:
        raise ValueError(f"the id of a class is {id_!r}")
    text = str(name).encode("utf-8", "replace").decode()[:LONGEST_NAME]
    return {"id": id_, "name": text.replace("\0", "")}
