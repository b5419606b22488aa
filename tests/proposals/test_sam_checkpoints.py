"""Checkpoints of SAM's layout: types from shapes, wrapped ones, named ones, and what is refused."""

import json
import zipfile
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.proposals import build_generator
from sapnet.proposals.sam.architecture import architecture_of, read_architecture, sam_state
from sapnet.proposals.sam.checkpoints import (
    CHECKPOINT_VARIABLE,
    CHECKPOINTS_VARIABLE,
    find_checkpoint,
)
from sapnet.proposals.sam.generator import SamGenerator
from sapnet.proposals.sam.load import build_sam, load_sam
from sapnet.utils import restricted_pickle

from .conftest import TINY, TINY_VIT

ENCODER = "image_encoder.blocks.0.attn.qkv.weight"


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)
    monkeypatch.delenv(CHECKPOINTS_VARIABLE, raising=False)


@pytest.fixture
def weights(model: Sam) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def saved(path: Path, document: Any, **settings: Any) -> Path:
    torch.save(document, path, **settings)
    return path


def with_prefix(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def of_type(path: Path, model_type: str) -> Path:
    """A checkpoint with Meta's shapes and no bytes of weights to speak of."""
    with torch.device("meta"):
        shapes = sam_model_registry[model_type]().state_dict()
    empty = torch.zeros(1)
    document = OrderedDict((name, empty.expand(t.shape)) for name, t in shapes.items())
    return saved(path, document)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["vit_b", "vit_l", "vit_h"])
def test_metas_models_by_their_shapes(tmp_path: Path, model_type: str) -> None:
    path = of_type(tmp_path / "a.pth", model_type)
    assert path.stat().st_size < 1 << 20
    sizes = read_architecture(path)
    assert sizes.model_type == model_type
    with torch.device("meta"):
        meta = sam_model_registry[model_type]()
    ours = build_sam(sizes, "meta")
    assert str(ours) == str(meta)  # every layer, in its sizes
    assert [b.window_size for b in ours.image_encoder.blocks] == [
        b.window_size for b in meta.image_encoder.blocks
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda w: w, id="Meta, MedSAM"),
        pytest.param(lambda w: {"model": w, "optimizer": {"state": {}}, "epoch": 3}, id="MedSAM's"),
        pytest.param(
            lambda w: {"model_state": with_prefix(w, "sam."), "decoder_state": {"a": w[ENCODER]}},
            id="micro-sam",
        ),
        pytest.param(lambda w: {"state_dict": with_prefix(w, "module.model.")}, id="Lightning"),
        pytest.param(lambda w: {**w, "decoder.head.weight": w[ENCODER]}, id="a decoder beside it"),
        pytest.param(lambda w: {n: torch.nn.Parameter(t) for n, t in w.items()}, id="parameters"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_checkpoints(
    model: Sam, weights: dict[str, torch.Tensor], tmp_path: Path, wrap: Any, zipped: bool
) -> None:
    document = wrap(weights)
    path = saved(tmp_path / "a.pt", document, _use_new_zipfile_serialization=zipped)
    assert read_architecture(path) == TINY
    loaded = load_sam(path)
    assert loaded.state_dict().keys() == weights.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert torch.equal(loaded.pixel_mean, model.pixel_mean)
    assert torch.equal(loaded.pixel_std, model.pixel_std)


class Dataset:
    """What a trainer leaves in its checkpoints; the class is gone when they are read."""

    def __init__(self) -> None:
        self.transform, self.items = partial(max, 3), [Path("a"), {1, 2}]


def test_what_a_trainer_left_in_a_checkpoint_is_not_run(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    document = {"init": Dataset(), "bomb": Bomb(), "model_state": with_prefix(weights, "sam.")}
    loaded = load_sam(saved(tmp_path / "best.pt", document))
    assert torch.equal(loaded.state_dict()[ENCODER], weights[ENCODER])
    assert not (tmp_path / "ran").exists()


def test_weights_in_half_precision_become_whole(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    half = {name: tensor.half() for name, tensor in weights.items()}
    loaded = load_sam(saved(tmp_path / "a.pth", half)).state_dict()
    assert loaded[ENCODER].dtype == torch.float32
    assert torch.equal(loaded[ENCODER], half[ENCODER].float())


def without(weights: dict[str, Any], name: str) -> dict[str, Any]:
    return {n: tensor for n, tensor in weights.items() if n != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: without(w, ENCODER), f"lacks {ENCODER}"),
        (lambda w: without(w, "image_encoder.pos_embed"), r"lacks image_encoder\.pos_embed"),
        (lambda w: without(w, "mask_decoder.iou_token.weight"), r"lacks mask_decoder\.iou_token"),
        (lambda w: {**w, ENCODER: w[ENCODER][1:]}, r"qkv\.weight has the shape \(95, 32\), not"),
        (lambda w: {**w, "image_encoder.pos_embed": w[ENCODER]}, "pos_embed has the shape"),
        (lambda w: {**w, "mask_decoder.hf_token.weight": w[ENCODER]}, r"no mask_decoder\.hf_token"),
        (lambda w: {n: t for n, t in w.items() if "mask_decoder" not in n}, "lacks mask_decoder"),
        (lambda w: {"vision_encoder.layers.0.weight": w[ENCODER]}, "holds no SAM"),
        (lambda w: [w], "holds no SAM"),
        (lambda w: w[ENCODER], "holds no SAM"),
    ],
)
def test_what_is_no_whole_sam_is_told(
    weights: dict[str, torch.Tensor], tmp_path: Path, spoil: Any, message: str
) -> None:
    path = saved(tmp_path / "a.pth", spoil(weights))
    with pytest.raises(ValueError, match=message):
        load_sam(path)
    with pytest.raises(WeightsUnavailable, match=rf"a\.pth is no checkpoint of SAM: .*{message}"):
        SamGenerator(checkpoint=path)


def test_files_that_torch_did_not_write(model: Sam, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    whole = saved(tmp_path / "whole.pth", model.state_dict()).read_bytes()
    for content in (b"", b"x" * 500, b"\x80\x02" + bytes(80), whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="torch did not write it"):
            read_architecture(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "words")
    with pytest.raises(ValueError, match="torch did not write it"):
        read_architecture(path)
    with pytest.raises(OSError):
        restricted_pickle.load_shapes(tmp_path)


def test_a_type_that_the_file_contradicts_is_refused(
    model: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(saved(tmp_path / "own.pth", model.state_dict())))
    with pytest.raises(
        InvalidConfig, match=r"model_type is 'vit_l', and .*own\.pth is a ViT of 2 blocks"
    ):
        build_generator({"kind": "sam", "model_type": "vit_l"})
    built = build_generator({"kind": "sam"})
    assert isinstance(built, SamGenerator)
    assert built.network.model.image_encoder.img_size == 128


def test_named_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: tmp_path / f"{name}.pth" for name in ("plain", "vit_h", "microscopy")}
    for path in files.values():
        path.touch()
    named = {name: str(files[name]) for name in ("microscopy", "vit_h")}
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, json.dumps(named))
    assert find_checkpoint() == files["microscopy"]  # the first
    assert find_checkpoint(checkpoint="vit_h") == files["vit_h"]
    assert find_checkpoint("vit_h") == files["vit_h"]
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(files["plain"]))
    assert find_checkpoint() == find_checkpoint(checkpoint="default") == files["plain"]
    assert find_checkpoint(checkpoint="microscopy") == files["microscopy"]
    assert find_checkpoint("vit_h") == files["vit_h"]
    assert find_checkpoint("vit_l") == files["plain"]  # whose type is checked next
    assert find_checkpoint(checkpoint=str(files["vit_h"])) == files["vit_h"]  # a path
    with pytest.raises(WeightsUnavailable, match=r"at cells \(named ones: default, microscopy"):
        find_checkpoint(checkpoint="cells")
    for wrong in ("{", "[]", '{"a": 3}'):
        monkeypatch.setenv(CHECKPOINTS_VARIABLE, wrong)
        with pytest.raises(InvalidConfig, match="SAPNET_SAM_CHECKPOINTS"):
            find_checkpoint()


def test_sizes_that_are_none_of_metas(weights: dict[str, torch.Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    assert architecture_of(sam_state(shapes)) == TINY
    assert TINY.model_type == "a ViT of 2 blocks of width 32"
    assert replace(TINY_VIT, width=768, depth=12).model_type == "vit_b"
    assert replace(TINY_VIT, width=768, depth=24).model_type not in ("vit_b", "vit_l")
