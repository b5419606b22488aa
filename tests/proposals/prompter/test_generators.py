"""With the weights that are shipped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sapnet.errors import WeightsUnavailable
from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags
from sapnet.proposals.interactive.clicks import Click
from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.clicks import refine
from sapnet.proposals.prompter.network import Prompter
from sapnet.proposals.prompter.ranker import Candidates, Ranker
from sapnet.proposals.prompter.scene import Scene
from sapnet.types import ByteArray, ImageInfo, PointAnnotation

Drawn = tuple[ByteArray, list[np.ndarray], list[PointAnnotation]]


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Four things of different size, form and colour on a noisy ground."""
    size = 240, 320
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    masks = [
        np.hypot(x - 70, y - 80) < 45,
        (np.abs(x - 220) < 60) & (np.abs(y - 60) < 25),
        ((x - 240) / 50) ** 2 + ((y - 180) / 30) ** 2 < 1,
        np.hypot(x - 60, y - 200) < 9,
    ]
    image = np.full((*size, 3), (70, 110, 80), np.int16)
    for mask, colour in zip(
        masks, ((210, 60, 50), (230, 220, 90), (60, 80, 200), (240, 240, 240)), strict=True
    ):
        image[mask] = colour
    image += np.random.default_rng(0).integers(-10, 11, image.shape, dtype=np.int16)
    places = [(72, 78), (215, 62), (238, 184), (60, 200)]
    at = [PointAnnotation(i, 1, 1, float(x), float(y)) for i, (x, y) in enumerate(places)]
    return np.clip(image, 0, 255).astype(np.uint8), masks, at


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompter", "hierarchy+prompter"])
def test_finds_what_is_drawn(kind: str, drawn: Drawn) -> None:
    image, masks, at = drawn
    info = ImageInfo(1, "a.png", image.shape[1], image.shape[0])
    generator = build_generator({"kind": kind})
    bags = make_bags(generator, image, info, at)
    for bag, mask in zip(bags, masks, strict=True):
        found = [iou(coco_mask.decode(m).astype(bool), mask) for m in bag.masks]
        assert max(found) > 0.8
        assert found[0] > 0.65
        assert 3 <= len(bag) <= 16
    again = make_bags(build_generator({"kind": kind}), image, info, at)
    assert [b.masks for b in again] == [b.masks for b in bags]
    assert not list(generator.propose(image, info, []))


@pytest.mark.slow
def test_fingerprints_tell_kinds_and_settings_apart() -> None:
    settings = (
        {"kind": "hierarchy"},
        {"kind": "prompter"},
        {"kind": "hierarchy+prompter"},
        {"kind": "hierarchy+prompter", "max_side": 512},
    )
    prints = [build_generator(s).fingerprint() for s in settings]
    assert len(set(prints)) == 4
    assert prints == [build_generator(s).fingerprint() for s in settings]


@pytest.mark.slow
def test_joined_bags_hold_both_kinds_by_falling_confidence(drawn: Drawn) -> None:
    image, _, at = drawn
    info = ImageInfo(1, "a.png", image.shape[1], image.shape[0])
    for raw in build_generator({"kind": "hierarchy+prompter"}).propose(image, info, at):
        assert len(raw.masks) == len(raw.confidence) == len(raw.sources) <= 16
        assert (np.diff(raw.confidence) <= 0).all()
        assert {s.startswith("prompter-") for s in raw.sources} == {True, False}


@pytest.mark.slow
def test_clicks_are_honoured_and_improve_the_mask(drawn: Drawn) -> None:
    image, masks, at = drawn
    scene = Scene(weights.load(), image)
    truth = masks[1]
    clicks = [Click(at[1].x, at[1].y, True)]
    first = refine(scene, clicks)
    assert iou(first, truth) > 0.6
    half = truth.copy()
    half[:, 215:] = False
    clicks.append(Click(250.5, 60.5, True))
    refined = refine(scene, clicks, half)
    assert refined[60, 250]
    assert iou(refined, truth) > iou(half, truth) + 0.1
    away = refine(scene, [*clicks, Click(160.5, 120.5, False)], truth | masks[0])
    assert not away[120, 160]


@pytest.mark.slow
def test_clicks_without_a_mask_need_a_positive_one(drawn: Drawn) -> None:
    scene = Scene(weights.load(), drawn[0])
    with pytest.raises(ValueError):
        refine(scene, [Click(5, 5, False)])
    mask = np.zeros(scene.size, bool)
    with pytest.raises(ValueError):
        refine(scene, [], mask)


@pytest.mark.slow
def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable):
        weights.load(tmp_path)
    for name in ("prompter.safetensors", "prompter.json"):
        (tmp_path / name).write_bytes((weights.FOLDER / name).read_bytes())
    content = bytearray((tmp_path / "prompter.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "prompter.safetensors").write_bytes(bytes(content))
    with pytest.raises(WeightsUnavailable, match="damaged"):
        weights.load(tmp_path)
    (tmp_path / "prompter.json").write_text("{}")
    with pytest.raises(WeightsUnavailable):
        weights.load(tmp_path)


@pytest.mark.slow
def test_saved_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, ranker = Prompter(), Ranker()
    model.body.load_state_dict(weights.lite0_state())
    with torch.no_grad():
        model.body.stages[4][0].project.bias += 1
    state = {k: v.clone() for k, v in model.state_dict().items()}
    weights.save(state, ranker, tmp_path, {"training": "none"})
    loaded, plain = weights.load(tmp_path), weights.ready(model)
    for (name, one), two in zip(
        loaded.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=1e-3, msg=name)
    for one, two in zip(
        weights.load_ranker(tmp_path).state_dict().values(),
        ranker.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(one, two)
    held = (tmp_path / "prompter.safetensors").stat().st_size
    own = sum(p.numel() for n, p in state.items() if not n.startswith("body."))
    assert held < 2.3 * own  # ImageNet's weights are not written again
    assert weights.card(tmp_path)["training"] == "none"


def test_empty_candidates_are_left_out() -> None:
    masks = np.zeros((3, 8, 9), bool)
    masks[0, 2:4] = masks[2, 3:6] = True
    sources = ["tree", "flood", "prompter"]
    found = Candidates.of(masks, np.float32([0.1, 0.9, 0.4]), sources, given=2)
    assert found.given == 1
    assert found.sources == ["tree", "prompter"]
    assert found.area.tolist() == [18, 27]
    assert found.confidence.tolist() == pytest.approx([0.1, 0.4])
    np.testing.assert_allclose(found.iou, [[1, 9 / 36], [9 / 36, 1]], rtol=1e-5)
