"""SAM 2 through our adapter, against the transformers package's own pipeline, on random weights."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.proposals import build_generator
from sapnet.proposals.sam import masks as sam_masks
from sapnet.proposals.sam.checkpoints import CHECKPOINT_VARIABLE, CHECKPOINTS_VARIABLE, find_sam2
from sapnet.proposals.sam.sam2 import Sam2Generator
from sapnet.proposals.sam.sam2_config import read_sam2_type
from sapnet.types import ImageInfo, RawProposals

from .conftest import iou, points

SIDE = 128
AT = points((20.5, 30.5), (70.25, 9.0), (70.25, 9.0), (89.5, 59.5), (3.5, 50.5))
INFO = ImageInfo(1, "a.png", 90, 60)


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)
    monkeypatch.delenv(CHECKPOINTS_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> Any:
    """SAM 2's architecture, small, with seeded random weights that draw masks of some contrast."""
    from transformers import Sam2Config, Sam2Model

    hiera = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
    }
    config = Sam2Config(
        vision_config={
            "backbone_config": hiera,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "iou_head_hidden_dim": 32,
            "num_attention_heads": 2,
        },
    )
    torch.manual_seed(4)
    model = Sam2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5)
    return model


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def dense(raw: RawProposals) -> np.ndarray:
    return np.moveaxis(coco_mask.decode(list(raw.masks)), 2, 0).astype(bool)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_masks_equal_the_packages_own(
    model: Any, image: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Sam2ImageProcessor, Sam2Processor

    monkeypatch.setattr(sam_masks, "SURELY_THE_SAME", 1.0)  # all of them, to compare
    raws = list(Sam2Generator(model=model, chunk=chunk, negatives=2).propose(image, INFO, AT))
    inputs = Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Sam2Processor(inputs, target_size=SIDE)
    xy = np.array([(a.x, a.y) for a in AT]) - 0.5  # it counts pixels, we count from their border
    shares = []
    for index, raw in enumerate(raws):
        away = np.hypot(*(xy - xy[index]).T)
        near = [j for j in np.argsort(away, kind="stable") if away[j] > 0][:2]
        for part, chosen in enumerate(([index], [index, *near])):
            asked = processor(
                images=image,
                input_points=[[xy[chosen].tolist()]],
                input_labels=[[[1, 0, 0][: len(chosen)]]],
                return_tensors="pt",
            )
            with torch.inference_mode():
                answer = model(**asked, multimask_output=True)
            (masks,) = processor.post_process_masks(answer.pred_masks, asked["original_sizes"])
            got, wanted = dense(raw)[3 * part : 3 * part + 3], masks[0].numpy()
            assert got.shape == wanted.shape == (3, 60, 90)
            # a logit that is 0 but for rounding may fall on either side
            assert (got != wanted).mean() < 1e-3
            np.testing.assert_allclose(
                raw.confidence[3 * part : 3 * part + 3],
                answer.iou_scores[0, 0].clip(0, 1),
                atol=1e-5,
            )
            shares.append(wanted.mean((1, 2)))
        assert raw.sources == ("sam2",) * 3 + ("sam2-negatives",) * 3
    assert ((np.array(shares) > 0.05) & (np.array(shares) < 0.95)).mean() > 0.5
    assert np.ptp(shares, axis=0).max() > 0.01  # prompts matter


@pytest.mark.slow
def test_kept_embeddings_and_bfloat16(model: Any, image: np.ndarray, tmp_path: Path) -> None:
    def run(**settings: Any) -> tuple[list[np.ndarray], Sam2Generator]:
        generator = Sam2Generator(model=model, cache_dir=tmp_path, negatives=0, **settings)
        return [dense(raw) for raw in generator.propose(image, INFO, AT)], generator

    plain, first = run(embedding_cache_mb=1)
    assert first.encodes == 1
    again, second = run(embedding_cache_mb=1)
    assert second.encodes == 0
    assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
    rough, other = run(embedding_cache_mb=1, encoder_bf16=True)
    assert other.encodes == 1  # not those that were kept in float32
    assert other.fingerprint() != first.fingerprint()
    agree = [
        max(iou(a, b) for b in there)
        for there, here in zip(plain, rough, strict=True)
        for a in here
    ]
    assert np.mean(agree) > 0.8


@pytest.mark.slow
def test_a_folder_is_the_model_that_was_saved(
    model: Any, folder: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_generator({"kind": "sam2", "checkpoint": str(folder)})
    assert built.fingerprint() == Sam2Generator(model=model).fingerprint()
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, json.dumps({"cells": str(folder)}))
    for settings in ({}, {"checkpoint": "cells"}):
        named = build_generator({"kind": "sam2", **settings})
        assert named.fingerprint() == built.fingerprint()
    with pytest.raises(InvalidConfig, match=r"model_type is 'tiny', and .*own is a Hiera of 1\+1"):
        build_generator({"kind": "sam2", "model_type": "tiny"})
    with pytest.raises(InvalidConfig, match="is a SAM 2: ask for the kind 'sam2'"):
        build_generator({"kind": "sam", "checkpoint": "cells"})


@pytest.mark.slow
def test_what_is_no_whole_sam2_is_told(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(message: str, error: type[Exception] = WeightsUnavailable) -> None:
        with pytest.raises(error, match=message) as raised:
            build_generator({"kind": "sam2", "checkpoint": str(folder)})
        assert "\n" not in str(raised.value)

    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = load_file(weights)
    name = "mask_decoder.iou_token.weight"
    save_file({n: t for n, t in whole.items() if n != name}, weights, {"format": "pt"})
    refused(rf"own is no checkpoint of SAM 2: it lacks {name}$")
    save_file({**whole, name: whole[name][:, :3].clone()}, weights, {"format": "pt"})
    refused("own is no checkpoint of SAM 2: ")
    weights.write_bytes(b"damaged")
    refused("own is no checkpoint of SAM 2: ")
    weights.unlink()
    refused(r"own is no checkpoint of SAM 2: model\.safetensors: No such file")
    weights.touch()
    config.write_text('{"model_type": "bert"}')
    refused("of a model of type 'bert', not 'sam2'")
    config.write_text("[]")
    refused("is not as transformers writes it")
    config.write_text("{")
    refused("own is no checkpoint of SAM 2: ")
    file = tmp_path / "sam.pth"
    file.write_bytes(b"words")
    with pytest.raises(WeightsUnavailable, match="no checkpoint of SAM: torch did not write it"):
        build_generator({"kind": "sam2", "checkpoint": str(file)})
    with pytest.raises(WeightsUnavailable, match=r"no SAM 2 checkpoint at .*gone; name a folder"):
        build_generator({"kind": "sam2", "checkpoint": str(tmp_path / "gone")})


@pytest.mark.slow
def test_a_download_that_fails_says_what_else_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Sam2Model

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no connection\nand a long story")

    monkeypatch.setattr(Sam2Model, "from_pretrained", offline)
    with pytest.raises(WeightsUnavailable, match=r"sam2\.1-hiera-small: no connection; name a"):
        build_generator({"kind": "sam2"})


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InvalidConfig, match=r"pip install 'sapnet-service\[sam2\]'"):
        build_generator({"kind": "sam2"})


@pytest.mark.parametrize(
    ("sizes", "model_type"),
    [
        ({}, "tiny"),
        ({"blocks_per_stage": [1, 2, 11, 2]}, "small"),
        ({"hidden_size": 112, "blocks_per_stage": [2, 3, 16, 3]}, "base-plus"),
        ({"hidden_size": 144, "blocks_per_stage": [2, 6, 36, 4]}, "large"),
        ({"hidden_size": 8}, "a Hiera of 1+2+7+2 blocks from width 8"),
    ],
)
@pytest.mark.parametrize("family", ["sam2", "sam2_video"])
def test_types_by_their_configuration(
    tmp_path: Path, family: str, sizes: dict[str, Any], model_type: str
) -> None:
    config = {"model_type": family, "vision_config": {"backbone_config": sizes}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    assert read_sam2_type(tmp_path) == model_type


def test_models_that_transformers_downloads() -> None:
    assert find_sam2() == "facebook/sam2.1-hiera-small"
    assert find_sam2("base-plus") == "facebook/sam2.1-hiera-base-plus"
    with pytest.raises(ValueError, match="'vit_b' is not one of tiny, small, base-plus, large"):
        find_sam2("vit_b")
