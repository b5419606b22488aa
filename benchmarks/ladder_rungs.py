"""The rungs of the ladder: what each adds to the ones below, as settings of a preset."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sapnet.config import Config, resolve_config

RULES = {
    "random": "random",
    "largest": "largest",
    "sam-top1": "most confident (sam-top1)",
    "consensus": "consensus",
}
CEILING = "best-of-bag"
BOTTOM: dict[str, Any] = {
    "mil.rule": "learned",
    "mil.point_distance": False,
    "mil.exclude_foreign_points": False,
    "mil.refinement": False,
    "mil.positives": False,
    "mil.part_negatives": 0,
    "mil.box_mining": False,
    "mil.completeness": False,
    "mil.prior_medoid": 0.0,
    "mil.prior_confidence": 0.0,
    "mil.prior_area": 0.0,
    "refine.enabled": False,
}


@dataclass(frozen=True)
class Rung:
    """One row. method: its name in JSON. title: in tables. adds: settings, which stay on above.

    work: "train" learns anew; "pick" keeps the weights of the rung below and changes the pick
    alone. passing: what it adds goes again, since the preset leaves it off.
    """

    method: str
    title: str
    adds: dict[str, Any] = field(default_factory=dict)
    work: Literal["train", "pick"] = "train"
    passing: bool = False


@dataclass(frozen=True)
class Stand:
    """A rung in its place. settings: all overrides of the preset. below: the method of the rung
    that it is compared with; None for the lowest."""

    rung: Rung
    settings: dict[str, Any]
    config: Config
    below: str | None


def stands(preset: str, overrides: dict[str, Any]) -> Iterator[Stand]:
    """The learned rungs in the papers' order (Table 6).

    overrides: settings that hold for all rungs. What a component is set to when it is on is the
    preset's. Background negatives teach from the first rung on (one class has no other teacher);
    the negatives that are parts of an object come with PNPG.
    """
    settings, below = {**overrides, **BOTTOM}, None
    for rung in ladder(resolve_config("sapnet++", preset, overrides)):
        now = {**settings, **rung.adds}
        yield Stand(rung, now, resolve_config("sapnet++", preset, now), below)
        if not rung.passing:
            settings, below = now, rung.method


def ladder(full: Config) -> tuple[Rung, ...]:
    """The rungs from the lowest to the highest. full: with every component as it shall be."""
    mil = full.mil
    exclude, parts = (
        {"mil.exclude_foreign_points": True},
        {"mil.part_negatives": mil.part_negatives},
    )
    priors = {
        f"mil.{name}": getattr(mil, name)
        for name in ("prior_medoid", "prior_confidence", "prior_area")
    }
    mining, off = {"mil.box_mining": True}, not mil.box_mining
    return (
        Rung("mil", "MIL (PSM alone)"),
        Rung("mil+pdg", "+ PDG", {"mil.point_distance": True, **exclude}),
        Rung("+srm", "+ SRM", {"mil.refinement": True}),
        Rung("+pnpg", "+ PNPG", {"mil.positives": True, **parts}),
        Rung("sapnet", "+ BMS (SAPNet)", mining, work="pick", passing=off),
        Rung("+sasd", "+ SASD", {"mil.completeness": True}),
        Rung("+priors", "+ priors", priors),
    )
