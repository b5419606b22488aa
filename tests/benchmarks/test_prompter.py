"""Training of the prompter in small: what it learns from, a slice and the next, the model card."""

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.data.masks import encode_all
from sapnet.proposals.prompter.ranker import FIGURES

FOLDER = Path(__file__).parents[2] / "benchmarks"
COLOURS = ((200, 60, 60), (70, 190, 90), (80, 80, 220), (220, 210, 80))


@pytest.fixture(scope="module")
def prompter() -> Iterator[SimpleNamespace]:
    """prompter.data, prompter.train and so on: benchmarks/prompter_*.py."""
    sys.path.insert(0, str(FOLDER))
    names = [path.stem.removeprefix("prompter_") for path in FOLDER.glob("prompter_*.py")]
    try:
        yield SimpleNamespace(
            **{name: importlib.import_module(f"prompter_{name}") for name in names}
        )
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set, "coco", of coloured discs; licences 1 to 8 in turn, every fourth held out."""
    root = tmp_path_factory.mktemp("sets")
    folder = root / "coco"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    rows, columns = np.mgrid[:150, :200] + 0.5
    for number in range(8):
        pixels = np.full((150, 200, 3), 90, np.uint8)
        for colour in COLOURS:
            x, y, radius = rng.uniform((20, 20, 8), (180, 130, 30))
            mask = np.hypot(columns - x, rows - y) < radius
            pixels[mask] = colour
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            segment = {"size": rle["size"], "counts": rle["counts"].decode()}
            annotations.append({"image_id": number, "segmentation": segment})
        name = f"{number}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        split = "val" if number % 4 == 3 else "train"
        entry = {"id": number, "file_name": name, "height": 150, "width": 200, "split": split}
        images.append(entry | {"licence_id": number + 1})
    content = {"images": images, "annotations": annotations}
    (folder / "instances.json").write_text(json.dumps(content))
    listed = {"set": "coco", "repos": ["a/b"], "licence": "own", "note": ""}
    (root / "sets.json").write_text(json.dumps([listed]))
    return root


@pytest.fixture
def one_set(prompter: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompter.data, "SETS", (("coco", 1.0),))


@pytest.mark.usefixtures("one_set")
def test_only_free_images_train_what_is_shipped(prompter: SimpleNamespace, root: Path) -> None:
    def names(split: str, free: bool) -> list[str]:
        return [e.path.stem for e in prompter.data.entries(root, split, free=free)]

    assert names("train", False) == ["0", "1", "2", "4", "5", "6"]
    assert names("train", True) == ["4", "6"]  # licences 5 and 7; 1 to 3 and 6 are not free
    assert names("val", True) == names("val", False) == ["3", "7"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_set")
@pytest.mark.parametrize("plain", [True, False])
def test_targets_lie_where_the_colours_are(
    prompter: SimpleNamespace, root: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through every cut, flip and scale: a target's cells are of one colour, the click's."""
    monkeypatch.setattr(prompter.data, "_recoloured", lambda pixels, rng: pixels)
    rng, checked = random.Random(1), 0
    for entry in prompter.data.entries(root, "train", free=False) * 4:
        crop = prompter.data.cut(entry, rng, plain=plain)
        if crop is None:
            continue
        for box, click, target, area in zip(
            *(crop[k] for k in ("boxes", "clicks", "target", "area")), strict=True
        ):
            assert float(target.sum()) <= 1.05 * area + 3
            image = crop["image"].astype(int)
            steps = (np.arange(64) + 0.5) / 64 * (box[2] - box[0])
            xs, ys = box[0] + steps, box[1] + steps
            sure = np.argwhere(target.numpy() > 0.999)
            assert np.abs(image[int(click[1]), int(click[0])] - 90).max() > 30
            for row, column in sure[:: max(len(sure) // 20, 1)]:
                x, y = int(xs[column]), int(ys[row])
                if 0 <= x < crop["size"][1] and 0 <= y < crop["size"][0]:
                    assert np.abs(image[y, x] - 90).max() > 30  # not the ground
                    checked += 1
    assert checked > 300


@pytest.mark.slow
@pytest.mark.usefixtures("one_set")
def test_a_slice_resumes_where_the_last_ended(
    prompter: SimpleNamespace, root: Path, tmp_path: Path
) -> None:
    train = prompter.train
    trainer = train.Trainer(tmp_path / "a.pt")
    chosen = prompter.data.entries(root, "train", free=False)
    batch = next(iter(prompter.data.Stream(chosen, 1, 3)))
    for seed in range(2):
        trainer.step(batch, random.Random(seed))
    trainer.save()
    again = train.Trainer(tmp_path / "a.pt")
    assert again.state.step == 2
    assert again.state.windows == 2 * len(batch.boxes)
    for one in (trainer, again):
        torch.manual_seed(0)
        one.step(batch, random.Random(5))
    for key, value in trainer.mean.items():
        torch.testing.assert_close(again.mean[key], value, msg=key)
    before = train.Trainer(tmp_path / "none.pt").mean
    changed = [k for k, v in again.mean.items() if not torch.equal(v, before[k])]
    assert changed
    assert not any(k.startswith("body.") for k in changed)  # not yet


@pytest.mark.slow
@pytest.mark.usefixtures("one_set")
def test_it_learns_one_batch_by_heart(
    prompter: SimpleNamespace, root: Path, tmp_path: Path
) -> None:
    trainer = prompter.train.Trainer(tmp_path / "a.pt")
    trainer.state.step = 100  # past the warm-up
    chosen = prompter.data.entries(root, "train", free=False)
    batch = next(iter(prompter.data.Stream(chosen, 1, 3)))
    losses = [trainer.step(batch, random.Random(9), 1.0)["mask0"] for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0]


def test_clicks_go_to_the_middle_of_the_largest_error(prompter: SimpleNamespace) -> None:
    wrong = np.zeros((64, 64), bool)
    wrong[3:6, 3:6] = True
    wrong[20:31, 40:51] = True
    assert prompter.train.deepest(wrong) == (25, 45)
    assert prompter.train.deepest(np.zeros((64, 64), bool)) is None


@pytest.mark.slow
def test_the_ranker_learns_what_tells_good_masks_apart(
    prompter: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompter.rank, "_STEPS", 150)
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 9, 9), bool)
    for k in range(12):
        masks[k, : 2 + k // 3, : 3 + k % 3] = True
    rles = encode_all(masks)
    points = []
    for number in range(60):
        iou = rng.uniform(0, 1, 12).astype(np.float32)
        told = rng.standard_normal((12, FIGURES)).astype(np.float32)
        told[:, 4] = iou + rng.normal(0, 0.05, 12)
        points.append(prompter.rank.RankedPoint(told, iou, rles, number // 3))
    found = prompter.rank.picked(prompter.rank.fit(points[:42]), points[42:])
    assert found["best"] - 0.06 < found["alone"] <= found["best"]
    assert found["best"] - 0.06 < found["together"] <= found["best"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_set")
def test_the_card_tells_what_it_was_trained_on(prompter: SimpleNamespace, root: Path) -> None:
    training = {"data": "strict", "steps": 7, "windows": 224, "cpu_seconds": 5, "seeds": [1, 2]}
    size = {"objects": 2, "most_confident": 0.5, "best": 0.75, "over_half": 0.5}
    figures = size | {"by_size": {"0.0%-0.5%": size}, "cpu_per_image": 0.7, "images": 1}
    text = prompter.card.text(training, root, {"coco96": figures})
    assert "| coco | a/b | own | 2 | 8 |" in text
    assert "| coco96 | 1 | 2 | 0.5 | 0.75 | 0.5 | 0.7 |" in text
    assert "ids 4, 5, 7, 8" in text
