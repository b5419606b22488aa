"""The rungs of the ladder: what each adds to the ones below, as settings of a preset."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sapnet.config.resolve import resolve_config
from sapnet.config.schema import Config

RULES = {
    "random": "random",
    "largest": "largest",
    "sam-top1": "sam-top1",
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
    "mil.prior_contrast": 0.0,
    "mil.prior_overlap": 0.0,
    "teacher.enabled": False,
    "refine.enabled": False,
}


@dataclass(frozen=True)
class Rung:
    """One row. method: its name in JSON. title: in tables. adds: settings, which stay on above.

    work: "train" learns anew; "pick" keeps the weights of the rung below and changes the pick
    alone; "deliver" keeps the picks too and refines the masks. passing: what it adds goes again,
    since the preset leaves it off.
    """

    method: str
    title: str
    adds: dict[str, Any] = field(default_factory=dict)
    work: Literal["train", "pick", "deliver"] = "train"
    passing: bool = False


@dataclass(frozen=True)
class Stand:
    """A rung in its place. settings: all overrides of the preset. below: the method of the rung
    that it is compared with; None for the lowest."""

    rung: Rung
    settings: dict[str, Any]
    config: Config
    below: str | None


def stands(preset: str, overrides: dict[str, Any], proposals: str) -> Iterator[Stand]:
    """The learned rungs in the papers' order (Table 6).

    overrides: settings that hold for all rungs. What a component is set to when it is on is the
    preset's, for this kind of proposals. Background negatives teach from the first rung on (one
    class has no other teacher); the negatives that are parts of an object come with PNPG.
    """
    full = resolve_config("sapnet++", preset, overrides, proposals)
    settings = {**overrides, **BOTTOM}
    below = None
    for rung in ladder(full):
        now = {**settings, **rung.adds}
        yield Stand(rung, now, resolve_config("sapnet++", preset, now, proposals), below)
        if not rung.passing:
            settings, below = now, rung.method


def ladder(full: Config) -> tuple[Rung, ...]:
    """The rungs from the lowest to the highest. full: with every component as it shall be."""

    def of_mil(*names: str) -> dict[str, Any]:
        return {f"mil.{name}": getattr(full.mil, name) for name in names}

    distance = {"mil.point_distance": True, "mil.exclude_foreign_points": True}
    positives = {"mil.positives": True, **of_mil("part_negatives")}
    mining, off = {"mil.box_mining": True}, not full.mil.box_mining
    priors = of_mil("prior_medoid", "prior_confidence", "prior_area")
    teacher = {"teacher.enabled": True, **of_mil("prior_contrast", "prior_overlap")}
    return (
        Rung("mil", "MIL (PSM alone)"),
        Rung("mil+pdg", "+ PDG", distance),
        Rung("+srm", "+ SRM", {"mil.refinement": True}),
        Rung("+pnpg", "+ PNPG", positives),
        Rung("sapnet", "+ BMS (SAPNet)", mining, work="pick", passing=off),
        Rung("+sasd", "+ SASD", {"mil.completeness": True}, passing=not full.mil.completeness),
        Rung("+priors", "+ priors", priors),
        Rung("+teacher", "+ teacher", teacher),
        Rung("sapnet++", "+ MLAR (SAPNet++)", {"refine.enabled": True}, work="deliver"),
    )
