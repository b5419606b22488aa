"""Generated scenes: right by their own reader, the same every time, and worth learning from."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.data.annotations.coco import check_against_images, load_points, read_points, read_truth
from sapnet.data.images import probe
from sapnet.data.masks import holds_points
from sapnet.data.synthetic import draw_scene, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"), 6, (120, 160), seed=3, start_id=5)


@pytest.mark.slow
def test_the_readers_accept_it(scenes):
    document = read_points(scenes.points)
    assert document.issues == []
    found = {path.name: probe(path) for path in scenes.images.iterdir()}
    assert set(found.values()) == {(120, 160)}
    assert check_against_images(document, found) == []
    points, truth = load_points(scenes.points), read_truth(scenes.truth)
    assert [image.id for image in points.images] == [5, 6, 7, 8, 9, 10]
    assert [item["id"] for item in truth["annotations"]] == [a.id for a in points.annotations]
    for annotation, true in zip(points.annotations, truth["annotations"], strict=True):
        assert (annotation.image_id, annotation.category_id) == (
            true["image_id"],
            true["category_id"],
        )
        assert holds_points(true["segmentation"], np.array([[annotation.x, annotation.y]])).all()


@pytest.mark.slow
def test_no_truth_in_the_points(scenes):
    keys = {key for item in json.loads(scenes.points.read_text())["annotations"] for key in item}
    assert keys == {"id", "image_id", "category_id", "point"}


def test_a_scene_depends_on_its_seed_and_id_alone(scenes, tmp_path):
    again = make_scenes(tmp_path, 2, (120, 160), seed=3, start_id=9)
    for name in ("scene-00009.png", "scene-00010.png"):
        assert (again.images / name).read_bytes() == (scenes.images / name).read_bytes()
    other = make_scenes(tmp_path / "other", 1, (120, 160), seed=4, start_id=9)
    name = "scene-00009.png"
    assert (other.images / name).read_bytes() != (again.images / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(96, 96), (192, 256), (224, 224)])
def test_masks_are_whole_disjoint_and_enough(size):
    touching = 0
    for seed in range(6):
        pixels, things, masks = draw_scene(size, np.random.default_rng(seed))
        assert pixels.shape == (*size, 3)
        assert 3 <= len(things) == len(masks) <= 7
        assert np.sum(masks, axis=0).max() == 1
        assert min(mask.sum() for mask in masks) > 60
        for thing, mask in zip(things, masks, strict=True):
            grown = np.zeros(np.add(size, 6), bool)
            for dy in range(7):
                for dx in range(7):
                    grown[dy : dy + size[0], dx : dx + size[1]] |= mask
            near = grown[3:-3, 3:-3]
            touching += any(
                (near & other).any()
                for mate, other in zip(things, masks, strict=True)
                if mate is not thing and mate.kind == thing.kind
            )
    assert touching >= 6  # neighbours of the same class


@pytest.mark.slow
def test_all_classes_and_parts_of_different_colour(tmp_path):
    scenes = make_scenes(tmp_path, 8, (128, 128))
    truth = read_truth(scenes.truth)
    assert {item["category_id"] for item in truth["annotations"]} == {1, 2, 3}
    spread = []
    for item in truth["annotations"]:
        name = f"scene-{item['image_id']:05d}.png"
        inside = coco_mask.decode(item["segmentation"]).astype(bool)
        spread.append(np.array(Image.open(scenes.images / name))[inside].std(axis=0).max())
    assert np.median(spread) > 30  # one flat colour would be about 10, the noise and the light


def test_too_small_and_none(tmp_path):
    with pytest.raises(ValueError, match="96"):
        make_scenes(tmp_path, 1, (95, 200))
    assert json.loads(make_scenes(tmp_path, 0).points.read_text())["images"] == []


@pytest.mark.slow
def test_as_a_command(tmp_path):
    command = [sys.executable, "-m", "sapnet.data.synthetic", str(tmp_path), "--count", "1"]
    done = subprocess.run([*command, "--size", "96"], check=True, capture_output=True, text=True)
    assert "1 scenes" in done.stdout
    assert probe(tmp_path / "images" / "scene-00001.png") == (96, 96)
