"""One range of values for a dataset: found, kept with the model, used for its predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sapnet.data.images import read_rgb
from sapnet.data.value_ranges import dataset_ranges
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec
from sapnet.segmenters.checkpoint import load_predictor

RNG = np.random.default_rng(0)


def series(folder: Path) -> list[Path]:
    """12 bits in 16; from image to image the object is brighter. One pixel of each is hot."""
    paths = []
    for number, top in enumerate((1000, 1800, 2600, 3400)):
        values = RNG.normal(400, 10, (64, 96))
        values[20:44, 30:60] = RNG.normal(top, 10, (24, 30))
        values[0, 0] = 65535
        paths.append(folder / f"{number}.png")
        Image.fromarray(values.astype(np.uint16)).save(paths[-1])
    return paths


def test_what_is_brighter_stays_brighter(tmp_path: Path) -> None:
    paths = series(tmp_path)
    ranges = dataset_ranges(paths)
    low, high = ranges["integer"]
    assert 350 < low < 400
    assert 3400 < high < 3500
    seen = [read_rgb(path, ranges=ranges)[25:40, 35:55].mean() for path in paths]
    assert np.diff(seen).min() > 50
    alone = [read_rgb(path)[25:40, 35:55].mean() for path in paths]
    assert np.ptp(alone) < 12


def test_kinds_have_a_range_each_and_bad_images_none(tmp_path: Path) -> None:
    paths = series(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    tifffile.imwrite(
        tmp_path / "float.tif", np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    )
    others = [tmp_path / name for name in ("bad.png", "plain.png", "float.tif", "none.png")]
    ranges = dataset_ranges([*others, *paths])
    assert ranges["integer"] == dataset_ranges([*paths, *others])["integer"]
    assert ranges["float"] == pytest.approx((0.0, 1.0), abs=0.02)
    assert dataset_ranges(others[:2]) == {}
    assert dataset_ranges([]) == {}


@pytest.mark.slow
def test_a_model_keeps_the_range_of_its_dataset(tmp_path: Path) -> None:
    paths = series(tmp_path)
    document = {
        "images": [
            {"id": n, "file_name": p.name, "width": 96, "height": 64} for n, p in enumerate(paths)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "point": [45, 32]} for n in range(4)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "points.json").write_text(json.dumps(document))
    spec = RunSpec(
        points=tmp_path / "points.json",
        image_paths=dict(enumerate(paths)),
        workdir=tmp_path / "run",
        proposal_store=tmp_path / "store",
        method="consensus",
        preset="demo",
        overrides={"train.epochs": 1, "train.min_steps": 1},
    )
    report = Run(spec, lambda event: None, lambda: False)()
    expected = dataset_ranges(paths)["integer"]
    assert tuple(report["pixel_ranges"]["integer"]) == expected
    predictor = load_predictor(tmp_path / "run" / "result" / "model.pt", device="cpu")
    assert tuple(predictor.pixel_ranges["integer"]) == expected
    dim, bright = (read_rgb(p, ranges=predictor.pixel_ranges) for p in (paths[0], paths[3]))
    assert dim[30, 45, 0] + 100 < bright[30, 45, 0]
