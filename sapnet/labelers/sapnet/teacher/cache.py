"""ProposalScores on disk: one file for a data set, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sapnet.types import ProposalScores
from sapnet.utils.files import atomic_write


def write_judgements(path: Path, judgements: Mapping[int, ProposalScores]) -> None:
    """Write them by annotation id."""
    found = list(judgements.values())
    with atomic_write(path) as file:
        np.savez(
            file,
            ids=np.array(list(judgements), dtype=np.int64),
            lengths=np.array([len(j.contrast) for j in found], dtype=np.int64),
            contrast=np.concatenate([j.contrast for j in found]),
            overlap=np.concatenate([j.overlap for j in found]),
        )


def read_judgements(path: Path) -> dict[int, ProposalScores]:
    """What `write_judgements` wrote."""
    with np.load(path, allow_pickle=False) as data:
        ends = np.cumsum(data["lengths"])[:-1]
        rows = zip(
            data["ids"].tolist(),
            np.split(data["contrast"], ends),
            np.split(data["overlap"], ends),
            strict=True,
        )
        return {index: ProposalScores(*rest) for index, *rest in rows}
