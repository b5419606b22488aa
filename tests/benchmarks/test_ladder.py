"""The ladder in small: its rungs, a climb on generated scenes, its tables, and the command."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.config.resolve import resolve_config
from sapnet.data.batch import make_batch
from sapnet.training.dataset import TrainingSet
from sapnet.training.model import build_model

pytestmark = pytest.mark.slow

METHODS = [
    *("random", "largest", "sam-top1", "consensus"),
    *("mil", "mil+pdg", "+srm", "+pnpg", "sapnet", "+sasd", "+priors"),
    *("+teacher", "sapnet++"),
    "best-of-bag",
]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ladder.py"


def difference(one, other):
    return {name for name in one if one[name] != other[name]}


def flat(config):
    return {f"{s}.{n}": v for s, own in config.to_dict().items() if isinstance(own, dict)
            for n, v in own.items()}  # fmt: skip


def test_each_rung_adds_its_own_component_and_no_other(ladder):
    found = list(ladder.rungs.stands("cpu", {"mil.part_negatives": 5}, "simulated"))
    at = {stand.rung.method: flat(stand.config) for stand in found}
    assert [stand.below for stand in found] == [
        *(None, "mil", "mil+pdg", "+srm", "+pnpg", "+pnpg", "+pnpg", "+priors", "+teacher")
    ]
    for stand in found[1:]:
        changed = difference(at[stand.rung.method], at[stand.below])
        assert changed <= set(stand.rung.adds), stand.rung.method
        assert changed, stand.rung.method
    assert at["+pnpg"]["mil.part_negatives"] == 5
    assert at["mil"]["mil.part_negatives"] == 0
    assert at["sapnet"]["mil.box_mining"]
    assert not at["+sasd"]["mil.box_mining"]  # the preset leaves it off
    assert at["+sasd"]["mil.completeness"]
    assert not at["+priors"]["mil.completeness"]  # and this too
    for proposals in ("simulated", "hierarchy"):
        *_, highest = ladder.rungs.stands("cpu", {"mil.gamma": 1.0}, proposals)
        assert highest.config == resolve_config("sapnet++", "cpu", {"mil.gamma": 1.0}, proposals)


def test_what_the_preset_has_on_stays(ladder):
    settings = {"mil.box_mining": True, "mil.completeness": True}
    found = {s.rung.method: s for s in ladder.rungs.stands("cpu", settings, "given")}
    assert found["+priors"].config.mil.completeness
    assert found["+priors"].below == "+sasd"
    assert not found["+pnpg"].config.mil.box_mining
    assert found["+sasd"].config.mil.box_mining
    assert found["+sasd"].below == "sapnet"


@pytest.fixture(scope="module")
def climbed(ladder, ask, scenes):
    shown = ladder.figure.chosen(ladder.data.DataSet.read(scenes), 2)
    return ladder.climb.climb(ask(scenes, shown=shown))


def test_a_climb_has_a_row_for_every_method(climbed):
    assert [row["method"] for row in climbed.rows] == METHODS
    by_method = {row["method"]: row for row in climbed.rows}
    best = by_method["best-of-bag"]["miou_mask"]
    for method, row in by_method.items():
        ceiling = 1 if method == "sapnet++" else best  # refined masks are none of the bag's own
        assert 0 < row["miou_mask"] <= ceiling, method
        assert row["objects"] == by_method["random"]["objects"] > 5
    assert best > 0.8
    assert by_method["mil+pdg"]["gap_group"] == 0  # what holds another's point is excluded
    assert by_method["sam-top1"]["miou_mask"] == pytest.approx(0.556, abs=0.03)  # as simulated
    assert by_method["largest"]["gap_group"] > 0


def test_masks_come_back_for_the_figure(climbed, ladder, scenes, tmp_path):
    data = ladder.data.DataSet.read(scenes)
    assert list(climbed.shown) == METHODS
    ids = set(climbed.shown["random"])
    assert len(ids) == 2
    assert all(set(masks) == ids for masks in climbed.shown.values())
    titles = {row["method"]: row["title"] for row in climbed.rows}
    ladder.figure.draw(tmp_path / "sheet.png", [(data, "scenes", climbed.shown)], titles)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    side, gap = ladder.figure.SIDE, ladder.figure.GAP
    assert sheet.shape[1] == (len(METHODS) + 2) * (side + gap) + gap
    panel = [sheet[36 : 36 + side, x : x + side] for x in (gap, gap + side + gap)]
    assert panel[0].std() > 5
    assert (panel[0] != panel[1]).any()


def test_the_seed_draws_everything_and_nothing_else_does(climbed, ladder, ask, scenes):
    asked = ask(scenes)
    figures = ("method", "miou_mask", "miou_box", "gap_local", "ap")
    first = [[row[f] for f in figures] for row in climbed.rows]
    torch.manual_seed(5)  # the global generator has no say
    again = [[row[f] for f in figures] for row in ladder.climb.climb(asked).rows]
    assert again == first
    rules = ladder.climb.climb(replace(asked, seed=1)).rows[:2]
    assert all(row["miou_mask"] != old[1] for row, old in zip(rules, first[:2], strict=True))


def test_a_chooser_on_frozen_features_picks_as_the_whole_model(ladder, ask, scenes, weights):
    asked = ask(scenes)
    data = ladder.data.DataSet.read(scenes)
    bags = dict(data.bags("simulated", 0, asked.work, {}))
    config = list(ladder.rungs.stands("cpu", asked.overrides, "simulated"))[-3].config
    model, _ = build_model(config, 3, weights, seed=4)
    chooser = ladder.learn.Chooser(
        channels=(24, 32, 96, 1280), num_classes=3, config=config, seed=9
    )
    chooser.fpn.load_state_dict(model.segmenter.backbone.fpn.state_dict())
    chooser.mil.load_state_dict(model.labeler.mil.state_dict())
    records = list(TrainingSet(data.points, data.paths, bags))
    frozen = ladder.data.thaw(asked.features)
    for record, one in zip(records, frozen, strict=True):
        sample = one.sample(record)
        whole = replace(sample, image=sample.image.float())
        with torch.no_grad():
            expected = model.eval()(make_batch([whole], model.device)).labels.selection
            found = chooser.eval()([one], [sample])
        assert found.selected.tolist() == expected.index.tolist()
        assert torch.allclose(found.expected_iou, expected.expected_iou, atol=0.01)


def test_images_of_two_sizes_make_one_batch(ladder):
    random = torch.Generator().manual_seed(0)
    one = [torch.randn(2, 4, 6, generator=random), torch.randn(3, 2, 3, generator=random)]
    other = [torch.randn(2, 6, 2, generator=random), torch.randn(3, 3, 1, generator=random)]
    fine, coarse = ladder.learn.stacked([one, other])
    assert fine.shape == (2, 2, 6, 6)
    assert coarse.shape == (2, 3, 3, 3)
    assert torch.equal(fine[0, :, :4], one[0])
    assert torch.equal(fine[1, :, :, :2], other[0])
    assert fine[0, :, 4:].abs().sum() == fine[1, :, :, 2:].abs().sum() == 0


def test_learning_changes_the_picks(ladder, ask, scenes):
    """Three steps at no rate give what no step gives; at a rate, something else."""
    asked = ask(scenes)
    data = ladder.data.DataSet.read(scenes)
    bags = dict(data.bags("simulated", 0, asked.work, {}))
    config = list(ladder.rungs.stands("cpu", asked.overrides, "simulated"))[5].config
    records = list(TrainingSet(data.points, data.paths, bags))
    frozen = ladder.data.thaw(asked.features)
    found = []
    for rate in (1e-9, 1e-2):
        now = replace(config, train=replace(config.train, learning_rate=rate))
        chooser = ladder.learn.learn(frozen, records, {}, 3, now, seed=0)
        found.append([p.confidence for p in ladder.learn.choose(chooser, frozen, records, {}, now)])
    assert np.abs(np.concatenate(found[0]) - np.concatenate(found[1])).max() > 1e-3


def world(folder, count):
    """Two noise images, the second without an object, the first with `count` of one class; what is
    given for each point is one mask, or nothing."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    head = {"images": [], "categories": [{"id": 7, "name": "thing"}]}
    for id_ in (1, 2):
        pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{id_}.png")
        head["images"].append({"id": id_, "file_name": f"{id_}.png", "width": 80, "height": 64})
    points, truth, given = [], [], {}
    for n in range(count):
        mask = np.zeros((64, 80), np.uint8, order="F")
        mask[10 : 20 + n, 5 + 20 * n : 20 + 20 * n] = 1
        rle = coco_mask.encode(mask)
        rle = {"size": [64, 80], "counts": rle["counts"].decode()}
        common = {"id": n, "image_id": 1, "category_id": 7}
        points.append({**common, "point": [10.5 + 20 * n, 15.5]})
        truth.append({**common, "segmentation": rle, "bbox": [5 + 20 * n, 10, 15, 10 + n],
                      "area": int(mask.sum()), "iscrowd": 0})  # fmt: skip
        if n:
            given[str(n)] = [{"segmentation": rle, "score": 0.5}]
    (folder / "points.json").write_text(json.dumps({**head, "annotations": points}))
    (folder / "instances.json").write_text(json.dumps({**head, "annotations": truth}))
    (folder / "proposals.json").write_text(json.dumps(given))
    return folder


def test_one_class_bags_of_one_and_an_image_without_objects(ladder, ask, tmp_path):
    rows = ladder.climb.climb(ask(world(tmp_path / "few", 3), "given")).rows
    assert [row["method"] for row in rows] == METHODS
    # two bags are the truth itself, the third is the disc that saves an empty one
    chosen = {round(row["miou_mask"], 6) for row in rows if row["method"] != "sapnet++"}
    assert len(chosen) == 1
    assert 2 / 3 < rows[0]["miou_mask"] < 1


def row(method, seed, miou, below=None, **more):
    figures = dict.fromkeys(("miou_box", "gap_group", "ap", "ap50", "ap75", "ap25"), 0.5)
    sizes = dict.fromkeys(("gap_local", "aps", "apm", "apl"))
    return {"data": "d", "proposals": "given", "method": method, "title": method.upper(),
            "below": below, "seed": seed, "miou_mask": miou, **figures, **sizes, "objects": 4,
            "seconds": 2.0 + seed, "peak_memory_mb": 10 * seed, **more}  # fmt: skip


def test_figures_over_seeds(ladder):
    rows = [row("a", 0, 0.5), row("a", 1, 0.6), row("b", 0, 0.4, "a", gap_local=0.2),
            row("b", 1, 0.54, "a"), row("c", 0, 0.7, "b"), row("c", 1, 0.5, "b")]  # fmt: skip
    a, b, c = ladder.tables.summary(rows)
    assert (a["miou_mask"], a["miou_mask_spread"]) == pytest.approx((0.55, 0.1 / 2**0.5))
    assert a["step"] is None
    assert (b["step"], b["step_spread"]) == pytest.approx((-0.08, 0.04 / 2**0.5))
    assert (b["gap_local"], b["gap_local_spread"]) == (0.2, 0.0)
    assert a["gap_local"] is None
    assert (a["seconds"], a["peak_memory_mb"], a["seeds"]) == (2.5, 10, 2)
    text = ladder.tables.markdown([a, b, c], "About.")
    assert "| B | 47.0 ± 9.9 |" in text
    assert "| C | 60.0 ± 14.1 | +13.0 ± 24.0 | 50.0 | - | 50.0 |" in text
    assert "by more than their spread: B on d, given (-8.0 ± 2.8)." in text
    (single,) = ladder.tables.summary(rows[:1])
    assert single["miou_mask_spread"] == 0
    assert "| A | 50.0 |" in ladder.tables.markdown([single], "")


def test_a_section_of_a_file_is_replaced_and_the_rest_stays(ladder, tmp_path):
    file = tmp_path / "results.md"
    file.write_text("# Results\n\nOld.\n")
    ladder.tables.write_section(file, "one\n")
    first = file.read_text()
    assert first.startswith("# Results\n\nOld.\n\n<!--")
    file.write_text(first + "\n## After\n")
    ladder.tables.write_section(file, "two\n")
    assert file.read_text() == first.replace("one", "two") + "\n## After\n"
    ladder.tables.write_section(tmp_path / "new.md", "one\n")
    assert (tmp_path / "new.md").read_text() == first.removeprefix("# Results\n\nOld.\n\n")


def test_proposals_by_name(ladder):
    names = ladder.data.expanded(["hierarchy", "simulated", "hierarchy"])
    assert names == ["hierarchy", "simulated", "simulated-oversized"]
    with pytest.raises(ValueError, match="'sum'"):
        ladder.data.expanded(["sum"])


def test_picks_by_rule(ladder, scenes, tmp_path):
    data = ladder.data.DataSet.read(scenes)
    bags = dict(data.bags("simulated", 0, tmp_path, {}))
    records = list(TrainingSet(data.points, data.paths, bags))
    scale = ladder.picks.Scale(data, bags)
    for record in records:
        for rule in ("random", "largest", "sam-top1", "consensus"):
            picks = ladder.picks.by_rule(rule, record, seed=0)
            assert len(picks.selected) == len(record.bags)
            for index, sure, bag in zip(picks.selected, picks.confidence, record.bags, strict=True):
                areas = coco_mask.area(list(bag.masks))
                assert 0 <= sure <= 1
                if rule == "largest":
                    assert areas[index] == areas.max()
                if rule == "sam-top1":
                    assert bag.confidence[index] == bag.confidence.max()
        best = scale.best(record)
        for index, sure, bag in zip(best.selected, best.confidence, record.bags, strict=True):
            true = scale.true[bag.annotation_id]["segmentation"]
            ious = coco_mask.iou(list(bag.masks), [true], [0])[:, 0]
            assert ious[index] == ious.max() == sure


def test_the_measure_by_hand(ladder, tmp_path):
    """Two objects: one mask is the truth, the other is half of it; the third has no mask."""
    data = ladder.data.DataSet.read(world(tmp_path / "few", 3))
    bags = dict(data.bags("given", 0, tmp_path / "store", {}))
    scale = ladder.picks.Scale(data, bags)
    whole = scale.true[1]["segmentation"]
    half = coco_mask.decode(scale.true[2]["segmentation"])
    half[:, : 45 + 7] = 0
    half = coco_mask.encode(half)
    ious = [coco_mask.iou([half], [scale.true[2]["segmentation"]], [0])[0, 0], 1.0]
    masks = [
        {"id": id_, "image_id": 1, "category_id": 7, "segmentation": rle, "score": 0.5,
         "bbox": coco_mask.toBbox(rle).tolist()}
        for id_, rle in ((1, whole), (2, half))
    ]  # fmt: skip
    figures = scale(masks)
    assert figures["miou_mask"] == pytest.approx(sum(ious) / 3)
    assert figures["objects"] == 3
    assert figures["ap25"] > figures["ap75"] > 0


def start(*arguments):
    """The script as a user starts it."""
    command = [sys.executable, str(SCRIPT), *(str(a) for a in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_the_command_and_that_its_figures_know_no_workers(scenes, weights, tmp_path):
    rows = {}
    for workers, more in ((2, ["--proposals", "simulated", "--affinity", 1]), (1, [])):
        out = tmp_path / str(workers)
        files = {"json": "rows.json", "markdown": "t.md", "figure": "p.png"}
        files = [part for name, file in files.items() for part in (f"--{name}", out / file)]
        done = start(
            *("--data", scenes, "--proposals", "hierarchy", "--seeds", 1, "--weights", weights),
            *("--override", "data.short_sides=[96]", "--override", "train.min_steps=3"),
            *("--override", "teacher.min_steps=3", "--override", "teacher.epochs=1"),
            *("--workers", workers, "--shown", 2, *more, *files),
        )
        assert done.returncode == 0, done.stderr
        rows[workers] = json.loads((out / "rows.json").read_text())
        for row in rows[workers]:
            assert row.pop("seconds") >= 0
            assert row.pop("peak_memory_mb") > 100
        assert (out / "p.png").stat().st_size > 10_000
        assert "| best of bag |" in done.stdout
        text = (out / "t.md").read_text()
        assert "| best of bag |" in text
        assert ("**Refinement**" in text) == (workers == 2)
    kinds = ["hierarchy", "simulated", "simulated-oversized"]
    expected = [(kind, method) for kind in kinds for method in METHODS]
    assert [(row["proposals"], row["method"]) for row in rows[2]] == expected
    assert rows[1] == rows[2][: len(METHODS)]
    asked = ("data", "miou_mask", "miou_mask_spread", "miou_box", "gap_local", "gap_group")
    assert set(asked) < set(rows[1][0])


@pytest.mark.slow
def test_end_to_end_has_the_same_rows(ladder, ask, scenes):
    small = {
        "solo.num_grids": [8, 6, 4, 3, 2],
        "solo.channels": 16,
        "solo.stacked_convs": 1,
        "solo.mask_channels": 16,
        "solo.mask_feature_channels": 16,
    }
    asked = ask(scenes, features=None, overrides=small)
    rows = ladder.climb.climb(asked).rows
    assert [row["method"] for row in rows] == METHODS
    runs = sorted(path.name for path in (asked.work / "scenes-simulated-0").iterdir())
    assert runs == sorted([*METHODS[4:-1], "proposals"])
    assert all(row["miou_mask"] > 0.1 for row in rows)
