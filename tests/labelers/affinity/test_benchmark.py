"""The benchmark's short form: refinement makes flawed masks better, and no kind of them worse."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torchvision

from sapnet.data.synthetic import make_scenes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FLAWS = ("eroded", "dilated", "holes", "coarse", "mean")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("affinity", ROOT / "benchmarks" / "affinity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gains(rows, figure, **which):
    """Points gained, by flaw, of the rows that `which` picks: one a flaw."""
    picked = [row for row in rows if all(row[key] == value for key, value in which.items())]
    assert [row["flaw"] for row in picked] == list(FLAWS)
    return {row["flaw"]: 100 * (row[figure] - row[f"{figure}_before"]) for row in picked}


def test_generated_scenes(benchmark, tmp_path):
    """Textured objects on textured ground: the image alone corrects a part of it.
    Features of random numbers know nothing, so nothing is asked of them."""
    make_scenes(tmp_path / "scenes", 1, (96, 128), seed=3)
    weights = tmp_path / "mobilenet.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), weights)
    heard = []
    rows = benchmark.run(tmp_path / "scenes", images=1, weights=weights, tell=heard.append)
    assert len(heard) == 1
    assert {row["data"] for row in rows} == {"scenes"}
    assert {row["images"] for row in rows} == {1}
    for figure in ("miou_mask", "boundary_iou"):
        got = gains(rows, figure, step=benchmark.ONCE, level="pixel")
        assert got["mean"] > 2
        assert min(got[flaw] for flaw in ("eroded", "dilated", "holes")) > 0
    text = benchmark.markdown(rows)
    assert text.count("| before |") == 2
    for name in (*FLAWS, "pixel", "semantic", "both", *benchmark.steps(benchmark.RefineConfig())):
        assert f" {name} |" in text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("coco96", 3.0), ("nuclei48", 2.0)])
def test_photographs(benchmark, name, least):
    root = os.environ.get("SAPNET_TEST_DATA")
    folder = (Path(root) if root else ROOT.parent / "shared" / "data") / name
    weights = folder.parents[1] / "weights" / "mobilenet_v2-imagenet-fp16.pt"
    if not folder.is_dir():
        pytest.skip(f"real data {name} is not here; SAPNET_TEST_DATA names its folder")
    if not weights.is_file():
        pytest.skip(f"{weights.name} is not in the folder weights/ beside the data's")
    rows = benchmark.run(folder, images=8, weights=weights)
    for figure in ("miou_mask", "boundary_iou"):
        got = gains(rows, figure, step=benchmark.DEFAULT, level="both")
        assert got["mean"] >= least
        assert min(got[flaw] for flaw in ("eroded", "dilated", "holes")) >= 0
