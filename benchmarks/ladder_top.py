"""The rungs above selection: what a teacher says of each proposal, and the masks delivered."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
from ladder_picks import Picks, Row
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.presets import PRESETS
from sapnet.config.schema import Config
from sapnet.data.samples import ImageRecord, load_sample
from sapnet.labelers.affinity.refine import affinity_guides, refine_repeatedly
from sapnet.labelers.delivery import at_image_size, blended, deliver
from sapnet.labelers.sapnet.teacher import TeacherDataset, fit_teacher, score_proposals
from sapnet.segmenters.backbones import build_backbone
from sapnet.types import ProposalScores


def taught(
    records: Sequence[ImageRecord], config: Config, weights: Path | None, seed: int
) -> dict[int, ProposalScores]:
    """What a teacher that was taught by the records' bags says, by annotation id; at the preset's
    own input, whatever the rungs train at."""
    config = replace(config, data=PRESETS[config.preset]().data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where weights are random, the tables tell
        backbone, _ = build_backbone(
            config.backbone, weights, generator=torch.Generator().manual_seed(0)
        )
    dataset = TeacherDataset(backbone.body, records, config)
    teacher = fit_teacher(dataset, config.teacher, seed=seed)
    return {
        annotation.id: scores
        for record, example in zip(records, dataset, strict=True)
        for annotation, scores in zip(
            record.annotations, score_proposals(teacher, example), strict=True
        )
    }


@torch.no_grad()
def delivered(record: ImageRecord, picks: Picks, levels: list[Tensor], config: Config) -> list[Row]:
    """Pseudo-masks as `sapnet.labelers.delivery` makes them, had SOLOv2 predicted nothing: what was
    picked and what its bag expects, through MLAR.

    levels: (C, h, w), the pyramid's maps of the image. The grid is that of the preset's own input,
    whatever the rungs trained at.
    """
    sample = load_sample(record, PRESETS[config.preset]().data)
    h, w = sample.size
    grid = (-(-h // config.output.stride), -(-w // config.output.stride))
    guide = F.interpolate(sample.image[None], size=grid, mode="area")[0]
    assert picks.posterior is not None
    nothing = guide.new_zeros(0, *grid)
    start = blended(record.bags, picks.selected, picks.posterior, nothing, [])
    rows, guides = [], affinity_guides(guide, levels, grid, config.refine)
    for n, mask in enumerate(refine_repeatedly(start, guides, config=config.refine)):
        annotation, bag = record.annotations[n], record.bags[n]
        refined = at_image_size(mask, record.info.size, config.output.mask_threshold)
        delivered_mask = deliver(annotation, bag, picks.selected[n], refined, config)
        agreement, confidence = delivered_mask.mask_features["agreement"], picks.confidence[n]
        score = confidence if agreement is None else (confidence + agreement) / 2
        rows.append({**msgspec.to_builtins(delivered_mask), "score": score})
    return rows
