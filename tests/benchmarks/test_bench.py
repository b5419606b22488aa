"""`make bench` in small: its sums, its page, that each measurement runs, and that both sides of one
give the same."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import assign, decode

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


@pytest.fixture(scope="module")
def load():
    """load(name): a module of benchmarks/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


def test_a_row_is_medians_their_ratio_and_its_spread(load):
    pairs = [(1.0, 4.0), (2.0, 8.0), (1.0, 2.0), (1.0, 6.0), (1.0, 4.0)]
    got = load("comparison").row("x", pairs, unit="MB", against="y", goal=3)
    assert (got["ours"], got["peer"], got["ratio"]) == (1, 4, 4)
    assert got["spread"] == 0  # ratios 2, 4, 4, 4, 6: the quartiles are all 4
    assert got["rounds"] == 5


@pytest.mark.slow
def test_both_take_turns_and_who_is_first_changes(load):
    order, now = [], [0.0]

    def work(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    got = load("comparison").compare(
        "x", work("a", 1.0), work("b", 3.0), against="b", rounds=3, sample=0, clock=lambda: now[0]
    )
    assert order == [*"ab", *"ab", *"ba", *"ab"]  # once each to warm up
    assert (got["ours"], got["peer"], got["ratio"], got["spread"]) == (1000, 3000, 3, 0)


@pytest.mark.slow
def test_short_work_is_repeated_until_it_fills_a_sample(load):
    now, calls = [0.0], [0]

    def work():
        calls[0] += 1
        now[0] += 0.001

    load("comparison").compare(
        "x", work, work, against="x", rounds=1, sample=0.01, clock=lambda: now[0]
    )
    assert calls[0] == 2 * (1 + 1 + 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_measurement_runs_in_small(load, name, tmp_path):
    bench = load("bench")
    done = CliRunner().invoke(
        bench_app(bench), [name, "--small", "--results", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    if name == "small" and not os.environ.get("ULTRALYTICS"):
        assert "ours alone" in done.output  # the peer is AGPL, and installed by hand
        assert not list(tmp_path.iterdir())
        return
    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert kept["small"]
    assert kept["commit"]
    assert kept["machine"]["cores"] >= 1
    assert kept["rows"]
    for row in kept["rows"]:
        assert row["ours"] > 0
        assert row["peer"] > 0
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
        assert row["name"] in done.output
    page = tmp_path / "page.md"
    page.write_text("# Before\n")
    for _ in range(2):  # the second time in place of the first
        bench.write_page(page, bench.section([kept]))
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.count(f"| {kept['rows'][0]['name']} |") == 1


def bench_app(bench):
    import typer

    app = typer.Typer()
    app.command()(bench.main)
    return app


def test_an_unknown_measurement_is_refused(load):
    done = CliRunner().invoke(bench_app(load("bench")), ["nothing"])
    assert done.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 40])
def test_target_assignment_is_that_of_plain_loops(load, count):
    config = SoloConfig()
    masks = load("bench_targets").ellipses(count, 50, 67)
    labels = torch.arange(count) % 3
    ours = assign(masks, labels, config, 3)
    classes, cells, copies = load("plain_targets").plain_assign(masks, labels, config, 3)
    assert torch.equal(ours.classes, torch.cat([level.flatten() for level in classes]))
    starts = torch.tensor([0, *(grid**2 for grid in config.num_grids[:-1])]).cumsum(0)
    assert torch.equal(ours.cells, torch.cat([c + s for c, s in zip(cells, starts, strict=True)]))
    assert torch.equal(masks[ours.instances], torch.cat(copies))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "original"),
    [((187, 317), (187, 317)), ((192, 320), (192, 320)), ((160, 250), (160, 250))],
)
@pytest.mark.parametrize("limits", [{}, {"max_instances": 7}, {"score_threshold": 0.6}])
def test_decoding_is_that_of_the_documented_order(load, content, original, limits):
    config = SoloConfig(**limits)
    output = load("bench_postprocess").scene((192, 320), 32, 80, config)
    (ours,) = decode(output, [content], [original], config)
    labels, scores, masks = load("plain_decode").plain_decode(output, content, original, config)
    assert len(masks) >= 7
    assert ours.labels.tolist() == labels
    assert ours.scores.tolist() == pytest.approx(scores, rel=1e-5)
    for one, other in zip(ours.masks, masks, strict=True):
        differ = coco_mask.decode(one) != coco_mask.decode(other)
        assert differ.sum() <= 1  # a pixel at the threshold itself may fall either way
    tight = np.stack([coco_mask.toBbox(mask) for mask in ours.masks])
    tight[:, 2:] += tight[:, :2]
    assert np.array_equal(ours.boxes, tight)


def test_nothing_above_the_threshold_decodes_to_nothing(load):
    config = SoloConfig()
    output = load("bench_postprocess").scene((192, 320), 4, 0, config)
    assert load("plain_decode").plain_decode(output, (192, 320), (192, 320), config) == ([], [], [])
