"""EfficientViT-SAM through our encoder, against the package's own model, on random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sapnet.errors import WeightsUnavailable
from sapnet.proposals import build_generator
from sapnet.proposals.sam.architecture import architecture_of, read_architecture, sam_state
from sapnet.proposals.sam.checkpoints import CHECKPOINT_VARIABLE, CHECKPOINTS_VARIABLE
from sapnet.proposals.sam.generator import SamGenerator
from sapnet.proposals.sam.load import build_sam, load_sam
from sapnet.types import ImageInfo

from .conftest import iou, points

INFO = ImageInfo(1, "a.png", 90, 60)
AT = points((20.5, 30.5), (70.25, 9.0), (89.5, 59.5))
TYPES = ("l0", "l1", "l2", "xl0", "xl1")


def original(size: str) -> Any:
    """The package's model; random statistics, so that its norms are seen."""
    from efficientsam.sam_model_zoo import create_efficientvit_sam_model

    torch.manual_seed(7)
    model = create_efficientvit_sam_model(f"efficientvit-sam-{size}", pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def l0() -> Any:
    return original("l0")


@pytest.fixture(scope="module")
def path(l0: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("efficientvit") / "efficientvit_sam_l0.pt"
    torch.save({"state_dict": l0.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("size", TYPES)
def test_every_layer_of_the_published_sizes(size: str) -> None:
    with torch.device("meta"):
        theirs = original(size).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    sizes = architecture_of(sam_state(shapes))
    assert sizes.model_type == f"efficientvit_{size}"
    ours = build_sam(sizes, "meta")
    assert {n: tuple(t.shape) for n, t in ours.state_dict().items()} == shapes
    assert ours.image_encoder.img_size == (512 if size.startswith("l") else 1024)


@pytest.mark.slow
def test_features_of_the_large_kind() -> None:
    """XL has attention at another scale and one stage more. 256 pixels: a grid that is smaller."""
    theirs = original("xl0")
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    ours = build_sam(architecture_of(sam_state(shapes)))
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.image_encoder(pixels), theirs.image_encoder(pixels), rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_masks_are_the_packages_own(l0: Any, path: Path, image: np.ndarray) -> None:
    from efficientsam.models.efficientvit.sam import EfficientViTSamPredictor

    predictor = EfficientViTSamPredictor(l0)
    predictor.set_image(image)
    generator = SamGenerator(checkpoint=path, negatives=0)
    torch.testing.assert_close(
        generator.network.encode(generator.network.prepare(image))[0],
        predictor.features,
        rtol=1e-4,
        atol=1e-4,
    )
    for annotation, raw in zip(AT, generator.propose(image, INFO, AT), strict=True):
        masks, quality, _ = predictor.predict(
            np.array([[annotation.x, annotation.y]]) - 0.5,  # it counts pixels from their centres
            np.array([1]),
        )
        drawn = {float(q): m for q, m in zip(quality, masks, strict=True) if m.any()}
        assert isinstance(raw.masks, tuple)
        assert len(raw.masks) == len(drawn)
        for rle, confidence in zip(raw.masks, raw.confidence, strict=True):
            nearest = min(drawn, key=lambda q: abs(q - confidence))
            assert confidence == pytest.approx(np.clip(nearest, 0, 1), abs=1e-4)
            assert iou(coco_mask.decode(rle).astype(bool), drawn[nearest]) > 0.98


@pytest.mark.slow
def test_a_file_by_its_shapes(l0: Any, path: Path) -> None:
    assert read_architecture(path).model_type == "efficientvit_l0"
    loaded = load_sam(path).state_dict()
    for name, tensor in l0.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    generator = build_generator(
        {"kind": "sam", "checkpoint": str(path), "model_type": "efficientvit_l0"}
    )
    assert generator.name == "sam"
    with pytest.raises(ValueError, match="is efficientvit_l0: leave it out"):
        SamGenerator(checkpoint=path, model_type="vit_b")


def test_without_a_file_it_says_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)
    monkeypatch.delenv(CHECKPOINTS_VARIABLE, raising=False)
    with pytest.raises(WeightsUnavailable, match=r"efficientvit_sam_xl1\.pt and set SAPNET_SAM"):
        SamGenerator(model_type="efficientvit_xl1")


@pytest.mark.slow
def test_damaged_ones_are_refused(l0: Any, tmp_path: Path) -> None:
    weights = dict(l0.state_dict())
    odd = dict(weights)
    block = "image_encoder.backbone.stages.2.op_list.1.main."
    odd[f"{block}strange.conv.weight"] = odd.pop(f"{block}spatial_conv.conv.weight")
    fewer = dict(weights)
    del fewer["image_encoder.neck.input_ops.0.op_list.0.conv.weight"]
    for name, state, why in (
        ("odd", odd, "no block of EfficientViT"),
        ("fewer", fewer, "is missing"),
        ("beyond", weights | {"image_encoder.extra": torch.zeros(1)}, "SAM has no image_encoder"),
    ):
        torch.save(state, tmp_path / name)
        with pytest.raises(WeightsUnavailable, match=why):
            SamGenerator(checkpoint=tmp_path / name)
