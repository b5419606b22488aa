"""Proposal scores on disk: one file for a dataset, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sapnet.types import ProposalScores
from sapnet.utils.files import atomic_write


def write_proposal_scores(path: Path, proposal_scores: Mapping[int, ProposalScores]) -> None:
    """Write them by annotation id."""
    scores = list(proposal_scores.values())
    with atomic_write(path) as file:
        np.savez(
            file,
            ids=np.array(list(proposal_scores), dtype=np.int64),
            lengths=np.array([len(s.contrast) for s in scores], dtype=np.int64),
            contrast=np.concatenate([s.contrast for s in scores]),
            overlap=np.concatenate([s.overlap for s in scores]),
        )


def read_proposal_scores(path: Path) -> dict[int, ProposalScores]:
    """Read the scores that `write_proposal_scores` wrote, by annotation id."""
    with np.load(path, allow_pickle=False) as data:
        ends = np.cumsum(data["lengths"])[:-1]
        rows = zip(
            data["ids"].tolist(),
            np.split(data["contrast"], ends),
            np.split(data["overlap"], ends),
            strict=True,
        )
        return {index: ProposalScores(*rest) for index, *rest in rows}
