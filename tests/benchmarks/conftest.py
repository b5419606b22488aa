"""The ladder's modules, and a dataset that takes seconds."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sapnet.data.synthetic import make_scenes

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY: dict[str, Any] = {
    "backbone.name": "mobilenet_v2",
    "backbone.fpn_channels": 16,
    "mil.fc_channels": 24,
    "mil.background_negatives": 8,
    "data.short_sides": [96],
    "data.max_long_side": 160,
    "data.flip": False,
    "train.epochs": 1,
    "train.min_steps": 3,
    "train.batch_size": 2,
    "train.reference_batch": 2,
    "teacher.epochs": 1,
    "teacher.min_steps": 3,
}


@pytest.fixture(scope="session")
def ladder() -> Iterator[SimpleNamespace]:
    """ladder.climb, ladder.rungs and so on: benchmarks/ladder_*.py."""
    sys.path.insert(0, str(FOLDER))
    names = [path.stem.removeprefix("ladder_") for path in FOLDER.glob("ladder_*.py")]
    try:
        yield SimpleNamespace(
            main=importlib.import_module("ladder"),
            **{name: importlib.import_module(f"ladder_{name}") for name in names},
        )
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, 3, (96, 128), seed=3)
    return folder


@pytest.fixture(scope="session")
def ask(
    ladder: SimpleNamespace, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """ask(folder, proposals, **changes): a climb with its features made."""

    def make(folder: Path, proposals: str = "simulated", **changes: Any) -> Any:
        work = tmp_path_factory.mktemp("work")
        overrides = {**TINY, **changes.pop("overrides", {})}
        config = ladder.main.resolve_config("sapnet++", "cpu", overrides)
        features = work / "features.pt"
        ladder.data.freeze(ladder.data.DataSet.read(folder), config, weights, features)
        fields = {"seed": 0, "features": features, "shown": (), **changes}
        return ladder.climb.Climb(
            folder=folder,
            proposals=proposals,
            preset="cpu",
            overrides=overrides,
            weights=weights,
            sam={},
            work=work,
            **fields,
        )

    return make
