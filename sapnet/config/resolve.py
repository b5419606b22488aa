"""Resolve a request to one checked `Config`, and read a stored one. Imports no torch."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import msgspec

from sapnet.config import DEFAULT_PROPOSALS
from sapnet.config.methods import (
    CALIBRATED_PROPOSALS,
    LEARNED_PROPOSALS,
    METHODS,
    for_learned_proposals,
    for_uncalibrated_proposals,
)
from sapnet.config.overrides import is_finite, numbers, override, override_names, quoted
from sapnet.config.presets import PRESETS, bodies_of
from sapnet.config.schema import Body, Config
from sapnet.errors import InvalidConfig
from sapnet.types import Method

_ARCHITECTURE = {
    "backbone": ("name", "fpn_channels", "fpn_norm", "p6"),
    "solo": ("channels", "stacked_convs", "mask_channels", "mask_feature_channels"),
}
"""The settings that determine which weights a segmenter has, and of what shapes."""

_POSITIVE = (
    "train.epochs",
    "train.batch_size",
    "train.learning_rate",
    "train.checkpoint_every",
    "train.reference_batch",
    "train.hold_out_least",
    "train.validations",
    "data.max_proposals",
    "data.min_scale",
    "data.short_sides",
    "data.max_long_side",
    "backbone.fpn_channels",
    "mil.fc_channels",
    "teacher.batch_size",
    "teacher.channels",
    "teacher.hidden",
    "teacher.cells",
    "teacher.points_per_image",
    "p2seg.channels",
    "p2seg.embedding",
    "p2seg.hardest",
    "p2seg.reach",
    "sim.dilation",
    "sim.tau",
    "sim.prototypes",
    "sim.rare",
    "sim.pixels",
    "sim.epsilon",
    "sim.rounds",
    "solo.channels",
    "solo.mask_channels",
    "solo.mask_feature_channels",
    "solo.num_grids",
    "output.stride",
)
_SHARES = (
    "data.min_scale",
    "data.color_jitter",
    "train.average",
    "train.hold_out",
    "train.patience",
    "output.drawn_agreement",
    "p2seg.object_from",
    "p2seg.ground_to",
    "p2seg.hardest",
    "p2seg.warmup",
    "sim.horizon",
    "sim.warmup",
    "sim.unboxed_from",
    "sim.alpha",
    "sim.high",
    "sim.low",
    "sim.alike",
)
_AT_MOST = {
    f"{stage}.{setting}": limit
    for stage in ("train", "teacher")
    for setting, limit in (("epochs", 10_000), ("min_steps", 1_000_000), ("batch_size", 1_024))
}
"""More is a slip of the finger, and would run for years."""


def resolve_config(
    method: str = "sapnet++",
    preset: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    proposals: str = DEFAULT_PROPOSALS,
    body: str | None = None,
) -> Config:
    """Join preset, method and overrides into one checked `Config`.

    Args:
        body: of the weights or the model that the training starts from; None where it is given
            none. It takes the place of the preset's where that may be (`presets.bodies_of`).
        overrides: values by dotted name, {"train.epochs": 6}.
        proposals: name of the generator; presets with a teacher weigh its figures by it.

    Raises:
        InvalidConfig: names the bad value, what it may be, and near matches.
    """
    _require("preset", preset, PRESETS)
    _require("method", method, METHODS)
    config = replace(PRESETS[preset](), method=cast(Method, method))
    if body in bodies_of(preset):
        config = replace(config, backbone=replace(config.backbone, name=cast(Body, body)))
    if config.teacher.enabled and proposals not in CALIBRATED_PROPOSALS:
        config = for_uncalibrated_proposals(config)
    elif config.teacher.enabled and proposals in LEARNED_PROPOSALS:
        config = for_learned_proposals(config)
    config = METHODS[method](config)
    changes = dict(overrides or {})
    if "train.epochs" in changes:
        changes.setdefault("train.min_steps", 0)
    for name, value in changes.items():
        config = override(config, name, value)
    check_config(config)
    return config


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """Read back what `Config.to_dict` wrote (through JSON, where tuples become lists).

    A setting that the writer's release did not know yet has its default; one that this release does
    not know any more is ignored.

    Raises:
        InvalidConfig: a setting has a value that it may not have.
    """
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"the settings are damaged: {error}") from None
    for name, value in _settings(config):
        if not is_finite(value):
            raise InvalidConfig(f"the settings are damaged: {name} is {value}")
    return config


def architecture_differences(config: Config, model: Mapping[str, Any]) -> list[str]:
    """Say where a model's segmenter has another architecture than `config` asks for.

    Args:
        model: what `Config.to_dict` wrote, perhaps through JSON.

    Returns:
        A sentence per setting; none where all of the model's weights fit. That of the body comes
        first, see `body_difference`.
    """
    wanted = config.to_dict()
    return [
        f"{stage}.{name} is {wanted[stage][name]!r}, the model's {stored!r}"
        for stage, names in _ARCHITECTURE.items()
        for name in names
        if (stored := (model.get(stage) or {}).get(name)) != wanted[stage][name]
    ]


def body_difference(config: Config, model: Mapping[str, Any]) -> str | None:
    """Say why no training with `config` can go on from a model; None where it can.

    Of what stands on another body nothing is of use; all else that does not fit begins anew.
    """
    differing = architecture_differences(config, model)
    return differing[0] if differing and differing[0].startswith("backbone.name ") else None


def bounds_in_words(name: str) -> str:
    """Say what `check_config` asks of the numbers of a setting, such as "> 0, ≤ 1"."""
    low = "> 0" if name in _POSITIVE else "≥ 0"
    high = "≤ 1" if name in _SHARES else f"≤ {_AT_MOST[name]:,}" if name in _AT_MOST else ""
    return f"{low}, {high}" if high else low


def _require(what: str, name: str, names: Iterable[str]) -> None:
    """Raise InvalidConfig, with what it may be and what is nearest, for a name that is none."""
    names = list(names)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidConfig(f"{what} {name!r} does not exist; it may be {quoted(names)}{hint}")


def _settings(config: Config) -> Iterator[tuple[str, Any]]:
    for name in override_names(config):
        stage, setting = name.split(".")
        yield name, getattr(getattr(config, stage), setting)


def check_config(config: Config, most: Mapping[str, int] | None = None) -> None:
    """Refuse settings whose values cannot be.

    Args:
        most: upper bounds by dotted name, beside those that always hold.

    Raises:
        InvalidConfig: names the setting, and what it may be.
    """
    settings = dict(_settings(config))
    for name in _POSITIVE:
        lowest = min(numbers(settings[name]), default=0)
        if lowest <= 0:
            raise InvalidConfig(f"{name} must be above 0, not {lowest}")
    for name, value in settings.items():
        if (lowest := min(numbers(value), default=0)) < 0:
            raise InvalidConfig(f"{name} must not be below 0, not {lowest}")
    for name, limit in _AT_MOST.items():
        if (value := settings[name]) > limit:
            raise InvalidConfig(f"{name} must be at most {limit:,}, not {value:,}")
    for name in _SHARES:
        if settings[name] > 1:
            raise InvalidConfig(f"{name} is a share, at most 1, not {settings[name]}")
    for name, limit in (most or {}).items():
        if (highest := max(numbers(settings[name]), default=0)) > limit:
            raise InvalidConfig(f"{name} must be at most {limit:,}, not {highest:,}")
    if config.mil.mps and (config.method != "sapnet" or config.preset == "paper_r101_3x"):
        raise InvalidConfig(
            "mil.mps is for the method sapnet, and not for the preset paper_r101_3x"
        )
    channels = config.teacher.channels
    if channels % 4:
        raise InvalidConfig(f"teacher.channels must be a multiple of 4, not {channels}")
    if len(config.solo.num_grids) != 5 or len(config.solo.scale_ranges) != 5:
        raise InvalidConfig("solo.num_grids and solo.scale_ranges need 5 entries, one per level")
