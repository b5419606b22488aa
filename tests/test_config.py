"""Presets, methods, overrides: what is taken, what is refused and in which words."""

import json
import math
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from sapnet.config.methods import (
    METHODS,
    for_learned_proposals,
    for_uncalibrated_proposals,
)
from sapnet.config.overrides import override_names
from sapnet.config.presets import PRESETS, cpu
from sapnet.config.resolve import config_from_dict, resolve_config
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_every_preset_survives_json(preset, method):
    config = resolve_config(method, preset)
    assert (config.preset, config.method) == (preset, method)
    written = json.loads(json.dumps(config.to_dict()))
    again = config_from_dict(written)
    assert again == config
    assert hash(again) == hash(config)  # tuples all the way down


def test_a_setting_that_an_older_release_did_not_know_has_its_default():
    written = resolve_config(overrides={"train.batch_size": 3}).to_dict()
    del written["solo"]["nms_sigma"]
    written["solo"]["gone"] = 3
    del written["teacher"]  # a whole stage
    again = config_from_dict(written)
    assert again.solo.nms_sigma == Config().solo.nms_sigma
    assert again.train.batch_size == 3
    assert again.teacher == Config().teacher


def test_presets_are_what_their_names_say():
    one, three = resolve_config(preset="paper_r50_1x"), resolve_config(preset="paper_r101_3x")
    assert (one.backbone.name, one.train.epochs, one.data.short_sides) == ("resnet50", 12, (800,))
    assert (three.backbone.name, three.train.epochs) == ("resnet101", 36)
    assert (min(three.data.short_sides), max(three.data.short_sides)) == (640, 800)
    assert resolve_config(preset="cpu").backbone.name == "efficientnet_lite0"
    assert resolve_config() == resolve_config("sapnet++", "cpu", {})


def switches(method):
    config = resolve_config(method, "paper_r50_1x")
    names = ("point_distance", "refinement", "positives", "box_mining", "completeness")
    on = {name for name in names if getattr(config.mil, name)}
    return config.mil.rule, on, config.refine.enabled


def test_methods_are_rungs_of_one_ladder():
    assert switches("sam-top1")[0] == "confidence"
    assert switches("consensus")[0] == "consensus"
    assert switches("mil") == ("learned", set(), False)
    sapnet = {"point_distance", "refinement", "positives", "box_mining"}
    assert switches("sapnet") == ("learned", sapnet, False)
    assert switches("sapnet++") == ("learned", sapnet | {"completeness"}, True)


def test_priors_depend_on_the_generator():
    """Where a preset has a teacher; overrides come after."""
    calibrated, other = resolve_config(proposals="hierarchy"), resolve_config(proposals="sam")
    learned = resolve_config()
    assert calibrated == cpu()
    assert learned == for_learned_proposals(cpu()) == resolve_config(proposals="prompter")
    assert (learned.output.segmenter_vote, calibrated.output.segmenter_vote) == (16, 0)
    assert other == for_uncalibrated_proposals(cpu())
    assert other.mil.prior_overlap == 0 < other.mil.prior_contrast
    assert calibrated.mil.prior_contrast == 0 < calibrated.mil.prior_overlap
    asked = resolve_config(overrides={"mil.prior_overlap": 3}, proposals="sam")
    assert asked == replace(other, mil=replace(other.mil, prior_overlap=3.0))
    for preset in ("paper_r50_1x", "paper_r101_3x"):
        for proposals in ("sam", "hierarchy", "hierarchy+prompter"):
            asked = resolve_config(preset=preset, proposals=proposals)
            assert asked == replace(PRESETS[preset](), method="sapnet++")


def test_which_methods_have_a_teacher():
    def has(method, proposals):
        return resolve_config(method, proposals=proposals).teacher.enabled

    for proposals in ("hierarchy", "sam"):
        assert {m for m in METHODS if has(m, proposals)} == {"sapnet++", "p2seg", "sim"}
    assert not any(has(method, "hierarchy+prompter") for method in METHODS)
    assert not resolve_config(preset="paper_r50_1x").teacher.enabled


@pytest.mark.parametrize("name", ["batch_size", "channels", "hidden", "cells", "points_per_image"])
def test_a_teacher_of_nothing_is_refused(name):
    with pytest.raises(InvalidConfig, match=f"teacher.{name} must be above 0, not 0"):
        resolve_config(overrides={f"teacher.{name}": 0})


def test_channels_come_in_groups():
    with pytest.raises(InvalidConfig, match=r"teacher.channels must be a multiple of 4, not 6"):
        resolve_config(overrides={"teacher.channels": 6})


def test_an_override_comes_after_the_method():
    assert resolve_config("mil", "cpu", {"mil.completeness": True}).mil.completeness


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("train.epochs", 6, 6),
        ("train.epochs", 10_000, 10_000),
        ("train.batch_size", 1_024, 1_024),
        ("train.learning_rate", 1, 1.0),
        ("train.learning_rate", 2.5e-4, 2.5e-4),
        ("train.optimizer", "sgd", "sgd"),
        ("mil.refinement", False, False),
        ("data.short_sides", [64, 96], (64, 96)),
        ("solo.scale_ranges", [[1, 2]] * 5, ((1.0, 2.0),) * 5),
        ("refine.zeta_global", "auto", "auto"),
        ("refine.zeta_global", 0.5, 0.5),
        ("refine.window", None, None),
        ("refine.window", 1, 1.0),
    ],
)
def test_good_values(name, given, kept):
    config = resolve_config(overrides={name: given})
    stage, setting = name.split(".")
    value = getattr(getattr(config, stage), setting)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train.epochs", "6", "a whole number"),
        ("train.epochs", 6.0, "a whole number"),
        ("train.epochs", True, "a whole number"),
        ("train.epochs", None, "a whole number"),
        ("train.epochs", 0, "above 0"),
        ("train.epochs", 1_200_000, "at most 10,000, not 1,200,000"),
        ("train.min_steps", 10_000_000, "at most 1,000,000"),
        ("train.batch_size", 1_025, "at most 1,024"),
        ("teacher.epochs", 10_001, "at most 10,000"),
        ("train.batch_size", -1, "above 0"),
        ("train.learning_rate", math.nan, "a finite number"),
        ("train.learning_rate", math.inf, "a finite number"),
        pytest.param("train.learning_rate", 10**400, "a finite number", id="huge"),
        pytest.param("train.epochs", 10**400, "at most 10,000", id="huge count"),
        ("train.learning_rate", False, "a finite number"),
        ("train.weight_decay", -0.1, "below 0"),
        ("mil.background_negatives", -1, "below 0"),
        ("mil.positive_scales", [0.1, -0.1], "below 0"),
        ("mil.fc_channels", 0, "above 0"),
        ("solo.num_grids", [4, 4, 4, 4, 0], "above 0"),
        ("solo.num_grids", [4, 4], "5 entries"),
        ("train.learning_rate", 0.0, "above 0"),
        ("train.optimizer", "adam", "'sgd' or 'adamw'"),
        ("train.optimizer", ["sgd"], "'sgd' or 'adamw'"),
        ("mil.refinement", 1, "true or false"),
        ("data.short_sides", 64, "a list of a whole number"),
        ("data.short_sides", [64, "96"], "a whole number"),
        ("data.short_sides", [], "above 0"),
        ("solo.scale_ranges", [[1, 2, 3]] * 5, "2 entries"),
        ("solo.scale_ranges", [[1, 2]] * 4, "5 entries"),
        ("solo.scale_ranges", [[1, math.nan]] * 5, "a finite number"),
        ("solo.scale_ranges", [[-1, 2]] * 5, "below 0"),
        ("refine.zeta_global", "self", "a finite number or 'auto'"),
        ("refine.zeta_global", math.nan, "a finite number or 'auto'"),
        ("refine.window", "wide", "a finite number or null"),
    ],
)
def test_bad_values_are_named(name, value, words):
    with pytest.raises(InvalidConfig) as caught:
        resolve_config(overrides={name: value})
    assert name in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("train", {"epochs": "6"}),
        ("train", {"learning_rate": math.nan}),
        ("solo", {"scale_ranges": [[1, math.inf]] * 5}),
        ("backbone", {"name": "vgg"}),
        ("mil", None),
        ("mil", []),
        ("method", "guess"),
    ],
)
def test_damaged_stored_settings_are_refused(stage, settings):
    with pytest.raises(InvalidConfig, match=stage):
        config_from_dict({**Config().to_dict(), stage: settings})


@pytest.mark.parametrize(
    ("name", "near"),
    [("train.epoch", "'train.epochs'"), ("epochs", "'train.epochs'"), ("mil.gama", "'mil.gamma'")],
)
def test_near_matches(name, near):
    with pytest.raises(InvalidConfig, match="did you mean") as caught:
        resolve_config(overrides={name: 1})
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "train", "method", "preset", "a.b.c", "zzzz"])
def test_names_that_are_no_setting(name):
    with pytest.raises(InvalidConfig, match="does not exist"):
        resolve_config(overrides={name: 1})


def test_unknown_preset_and_method_list_what_there_is():
    with pytest.raises(InvalidConfig, match="'cpu', 'demo'"):
        resolve_config(preset="gpus")
    with pytest.raises(InvalidConfig, match=r"'sapnet', 'sapnet\+\+'"):
        resolve_config(method="sapnet+")


def test_override_names_are_all_settings():
    stages = [f.name for f in fields(Config) if f.name not in ("method", "preset")]
    assert {name.split(".")[0] for name in override_names(Config())} == set(stages)
    assert len(override_names(Config())) == len(set(override_names(Config())))


@pytest.mark.slow
def test_the_api_may_check_settings_without_torch():
    code = (
        "import sys, sapnet.config.resolve, sapnet.data.drawing, sapnet.types; "
        "import sapnet.data.annotations.coco; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
