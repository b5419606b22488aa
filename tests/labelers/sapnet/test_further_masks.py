"""MPS: which masks of a bag are learned beside the selected one."""

from dataclasses import replace

import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.errors import InvalidConfig
from sapnet.labelers.sapnet.further_masks import NONE, further_picks


@pytest.mark.parametrize("seed", range(8))
def test_best_median_and_worst_of_the_others(tools, seed):
    bags = tools.make_bags(seed, (1, 2, 3, 4, 5, 8, 7))
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(bags.valid.shape, generator=generator) * 4).round() / 4  # ties
    selected = (torch.rand(7, generator=generator) * bags.valid.sum(1)).long()
    boxed = torch.tensor([False] * 6 + [True])
    got = further_picks(scores, replace(bags, boxed=boxed), selected)
    for n, picked in enumerate(selected.tolist()):
        others = bags.valid.clone()
        others[n, picked] = False
        ranked = tools.ranking(bags, scores, others, n)
        wanted = [NONE] * 3
        if ranked and not boxed[n]:
            wanted[0] = ranked[0]
            wanted[1] = ranked[(len(ranked) - 1) // 2] if len(ranked) > 2 else NONE
            wanted[2] = ranked[-1] if len(ranked) > 1 else NONE
        assert got[n].tolist() == wanted


def test_no_bags_and_bags_of_one(tools):
    for lengths in ((), (1, 1)):
        bags = tools.make_bags(0, lengths)
        none = torch.zeros(len(lengths), dtype=torch.int64)
        got = further_picks(torch.rand(bags.valid.shape), bags, none)
        assert got.shape == (len(lengths), 3)
        assert (got == NONE).all()


def test_for_sapnet_alone():
    assert resolve_config("sapnet", overrides={"mil.mps": True}).mil.mps_weight == 0.25
    with pytest.raises(InvalidConfig, match=r"mil\.mps"):
        resolve_config("sapnet++", overrides={"mil.mps": True})
    with pytest.raises(InvalidConfig, match="paper_r101_3x"):
        resolve_config("sapnet", "paper_r101_3x", {"mil.mps": True})
