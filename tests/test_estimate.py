"""Estimates of a training's time: what they grow with, and what measured trainings change."""

from dataclasses import replace

import pytest

from sapnet.config.estimate import (
    FinishedTraining,
    Gpu,
    Machine,
    SizeGroup,
    Workload,
    estimate,
)
from sapnet.config.resolve import resolve_config
from sapnet.types import Category, ImageInfo, PointAnnotation, PointSet
from sapnet.utils import speed

CPU = resolve_config("sapnet++", "cpu", proposals="hierarchy")
DEMO = resolve_config("sapnet++", "demo", proposals="hierarchy")
MACHINE = Machine(2)
NUCLEI = Workload((SizeGroup(256, 256, 28, 700), SizeGroup(360, 360, 20, 895)), "hierarchy")
PHOTOS = Workload((SizeGroup(640, 480, 70, 500), SizeGroup(480, 640, 26, 206)), "hierarchy")
SCENES = Workload((SizeGroup(224, 224, 48, 241),), "hierarchy")


@pytest.mark.parametrize(
    ("preset", "overrides", "workload", "measured"),
    [
        ("cpu", {}, NUCLEI, 613),
        ("cpu", {"train.epochs": 12}, PHOTOS, 507),
        ("demo", {}, SCENES, 247),
    ],
)
def test_measured_trainings_are_met(preset, overrides, workload, measured):
    """Those of docs/results.md, on two cores."""
    config = resolve_config("sapnet++", preset, overrides, "hierarchy")
    told = estimate(config, replace(workload, has_truth=True), MACHINE)
    assert measured / 1.5 < told.total < measured * 1.5
    assert told.low <= told.total / 2 < told.total * 2 <= told.high


def total(config=CPU, workload=NUCLEI, machine=MACHINE):
    return estimate(config, workload, machine).total


def scaled(workload, **factors):
    groups = (
        SizeGroup(
            g.width * factors.get("side", 1),
            g.height * factors.get("side", 1),
            g.images * factors.get("images", 1),
            g.objects * factors.get("objects", 1),
        )
        for g in workload.groups
    )
    return replace(workload, groups=tuple(groups))


@pytest.mark.parametrize(
    "workload",
    [
        scaled(NUCLEI, images=10, objects=10),
        scaled(NUCLEI, objects=3),
        scaled(NUCLEI, side=4),
        replace(NUCLEI, proposals="hierarchy+prompter"),
        replace(NUCLEI, proposals="sam"),
    ],
)
def test_more_work_takes_longer(workload):
    assert total(workload=workload) > 1.05 * total()


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.min_steps": 800},
        {"train.epochs": 100},
        {"train.batch_size": 8, "train.min_steps": 400},
        {"data.short_sides": [640], "data.max_long_side": 1000},
        {"backbone.name": "resnet50"},
    ],
)
def test_larger_settings_take_longer(overrides):
    assert total(resolve_config("sapnet++", "cpu", overrides, "hierarchy")) > 1.2 * total()


def test_a_faster_machine_takes_less():
    assert total(machine=Machine(8, speed=3.0)) == pytest.approx(total() / 3)
    assert total(machine=Machine(8, Gpu("any", 8 << 30))) < total() / 2
    assert total(resolve_config("consensus", "cpu")) < total()


def test_large_models_of_sam_take_longer():
    kinds = [replace(NUCLEI, proposals="sam", model_type=t) for t in (None, "vit_l", "vit_h")]
    assert sorted(map(total_of, kinds)) == list(map(total_of, kinds))
    assert total_of(kinds[0]) < total_of(kinds[2]) / 2


def total_of(workload):
    return total(workload=workload)


def finished(config, workload, factor, **others):
    """As a machine would take that is slower by a factor."""
    slow = estimate(config, workload, Machine(2, speed=1 / factor)).seconds
    return FinishedTraining(config, workload, MACHINE, {**slow, **others})


def test_trainings_that_are_finished_tell_more_than_the_model():
    told = estimate(CPU, NUCLEI, MACHINE, [finished(CPU, PHOTOS, 3.0)])
    assert told.total == pytest.approx(3 * total())
    assert told.basis == "1 finished training with this preset"
    assert told.high < 2 * told.total
    other = estimate(CPU, NUCLEI, MACHINE, [finished(DEMO, SCENES, 3.0)])
    assert other.total == pytest.approx(3 * total())
    assert other.basis == "1 finished training with other settings"


def test_the_same_settings_tell_more_than_others_and_most_more_than_one():
    seen = [finished(DEMO, SCENES, 9.0), *(finished(CPU, PHOTOS, f) for f in (2.0, 2.0, 30.0))]
    assert estimate(CPU, NUCLEI, MACHINE, seen).total == pytest.approx(2 * total())


def test_proposals_that_were_kept_do_not_count():
    kept = finished(CPU, PHOTOS, 2.0, proposals=1.1)
    told = estimate(CPU, NUCLEI, MACHINE, [kept]).seconds
    assert told["proposals"] == pytest.approx(
        2 * estimate(CPU, NUCLEI, MACHINE).seconds["proposals"]
    )


def test_stages_are_those_of_the_run():
    told = estimate(CPU, NUCLEI, MACHINE).seconds
    stages = ["start", "proposals", "teacher", "train", "pseudo-masks", "evaluate", "export"]
    assert list(told) == stages
    assert "teacher" not in estimate(resolve_config("mil", "cpu"), NUCLEI, MACHINE).seconds


def test_an_empty_dataset_takes_no_time_to_speak_of():
    assert total(workload=Workload((), "hierarchy")) < 60
    assert total(workload=Workload((SizeGroup(64, 64, 1, 0),), "hierarchy")) > 0


def test_words():
    told = estimate(CPU, NUCLEI, MACHINE).in_words()
    assert told.startswith("about 1")
    assert "minutes (5 minutes to 2" in told
    assert "hours" in estimate(CPU, scaled(NUCLEI, images=99), MACHINE).in_words()


def test_the_workload_of_points():
    images = [ImageInfo(1, "a", 30, 20), ImageInfo(2, "b", 30, 20), ImageInfo(5, "c", 20, 30)]
    objects = [PointAnnotation(i, image, 0, 1, 1) for i, image in enumerate((1, 1, 2, 5))]
    points = PointSet(tuple(images), tuple(objects), (Category(0, "cell"),))
    workload = Workload.of(points, "sam", "vit_b", has_truth=True)
    assert set(workload.groups) == {SizeGroup(30, 20, 2, 3), SizeGroup(20, 30, 1, 1)}
    assert (workload.images, workload.objects, workload.model_type) == (3, 4, "vit_b")


def test_the_speed_is_measured_once(monkeypatch):
    speed.relative_speed.cache_clear()
    seconds = iter([0.02, 0.005, 0.03, 0.02, 0.02])
    monkeypatch.setattr(speed, "_work", lambda *_: next(seconds))
    monkeypatch.setattr(speed, "cores", lambda: 2)
    assert speed.relative_speed() == pytest.approx(speed.REFERENCE_SECONDS / 0.005)
    assert speed.relative_speed() > 0  # would raise StopIteration
    speed.relative_speed.cache_clear()


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "CPU_MAX", tmp_path / "cpu.max")
    free = speed.cores()
    for text, expected in [("100000 100000", 1), ("max 100000", free), ("1000 100000", 1)]:
        (tmp_path / "cpu.max").write_text(text)
        assert speed.cores() == expected
