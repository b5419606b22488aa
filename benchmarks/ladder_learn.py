"""One rung learned on frozen features: the pyramid and the MIL branch alone, then the picks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ladder_data import DataSet, Frozen, thaw
from ladder_picks import Picks, Row, picked
from ladder_rungs import Stand
from ladder_top import delivered, taught
from torch import Tensor, nn

from sapnet.config.schema import Config
from sapnet.data.samples import ImageRecord, Sample
from sapnet.errors import NonFiniteLoss
from sapnet.labelers.sapnet.bag_features import BagCollator
from sapnet.labelers.sapnet.selector import MilBranch, MilResult
from sapnet.segmenters.backbones.fpn import Fpn
from sapnet.training.loader import BatchLoader
from sapnet.training.loop import make_fast
from sapnet.training.optim import make_optimizer, set_learning_rate
from sapnet.types import ProposalScores

STRIDES = (4, 8, 16, 32, 64)


class OnFrozen:
    """Makes the pseudo-masks of one rung after the other; it keeps what the last one learned."""

    def __init__(
        self,
        data: DataSet,
        records: Sequence[ImageRecord],
        *,
        features: Path,
        weights: Path | None,
        seed: int,
    ) -> None:
        """features: the file that `ladder_data.freeze` wrote. weights: of the body."""
        self.records, self.weights, self.seed = records, weights, seed
        self.num_classes = len(data.points.categories)
        self.frozen = thaw(features)
        self.chooser: Chooser | None = None
        self.proposal_scores: dict[int, ProposalScores] = {}
        self.picks: list[Picks] = []

    def __call__(self, stand: Stand) -> list[Row]:
        """The picks as pseudo-masks, scored by their expected IoU; the highest rung refines."""
        config, work = stand.config, stand.rung.work
        if config.teacher.enabled and not self.proposal_scores:
            self.proposal_scores = taught(self.records, config, self.weights, self.seed)
        if work == "train" or self.chooser is None:
            self.chooser = learn(
                self.frozen, self.records, self.proposal_scores, self.num_classes, config, self.seed
            )
        if work != "deliver" or not self.picks:
            self.picks = choose(
                self.chooser, self.frozen, self.records, self.proposal_scores, config
            )
        if not config.refine.enabled:
            return picked(self.records, self.picks)
        rows = []
        for record, picks, one in zip(self.records, self.picks, self.frozen, strict=True):
            rows += delivered(record, picks, self.chooser.maps(one), config)
        return rows


class Chooser(nn.Module):
    """What a rung trains: sapnet/training/model.py without its body and without SOLOv2."""

    def __init__(
        self, *, channels: Sequence[int], num_classes: int, config: Config, seed: int
    ) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.fpn_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fpn = Fpn(tuple(channels), width)
            self.collate = BagCollator(config.mil)
            self.mil = MilBranch(
                num_classes=num_classes, in_channels=width, strides=STRIDES, config=config.mil
            )

    def forward(
        self,
        frozen: Sequence[Frozen],
        samples: list[Sample],
        generators: list[torch.Generator] | None = None,
        trust: bool = True,
    ) -> MilResult:
        """As `SapnetLabeler.select`, from features instead of pixels."""
        sizes = torch.tensor([sample.size for sample in samples])
        levels = self.fpn(stacked([one.levels for one in frozen]))
        result: MilResult = self.mil(levels, self.collate(samples), sizes, generators, trust)
        return result

    @torch.no_grad()
    def maps(self, one: Frozen) -> list[Tensor]:
        """The pyramid of one image, (C, h, w) a level, cut to the image's own part."""
        h, w = one.image.shape[1:]
        levels = self.fpn([level[None].float() for level in one.levels])
        return [
            level[0, :, : -(-h // stride), : -(-w // stride)]
            for level, stride in zip(levels, STRIDES, strict=True)
        ]


def stacked(images: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The levels of several images as batches, float32; zeros to the right and below."""
    batches = []
    for level in zip(*images, strict=True):
        size = [max(one.shape[axis] for one in level) for axis in (1, 2)]
        batch = torch.zeros(len(level), level[0].shape[0], *size)
        for row, one in zip(batch, level, strict=True):
            row[:, : one.shape[1], : one.shape[2]] = one
        batches.append(batch)
    return batches


def learn(
    frozen: Sequence[Frozen],
    records: Sequence[ImageRecord],
    proposal_scores: Mapping[int, ProposalScores],
    num_classes: int,
    config: Config,
    seed: int,
) -> Chooser:
    """Train a chooser from nothing, as fast and in the batches of the engine, for as many steps.
    NonFiniteLoss where it diverges."""
    channels = [level.shape[0] for level in frozen[0].levels]
    chooser = Chooser(channels=channels, num_classes=num_classes, config=config, seed=seed)
    chooser.collate.proposal_scores = proposal_scores
    chooser.train()
    make_fast(chooser)
    batches = BatchLoader(records, config, seed)
    sampler = batches.sampler
    optimizer = make_optimizer(chooser, config.train)
    for index in range(batches.total):
        step, batch = batches.step(index), sampler.batch(index)
        generators = [sampler.generator(index, place + 1) for place in range(len(batch))]
        chosen = [frozen[i] for i in batch]
        samples = [frozen[i].sample(records[i]) for i in batch]
        trust = step.fraction >= config.mil.completeness_warmup
        losses = chooser(chosen, samples, generators, trust).losses
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise NonFiniteLoss("mil", index, float(loss))
        set_learning_rate(optimizer, config.train, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chooser.parameters(), config.train.clip_norm)
        optimizer.step()
    return chooser.eval()


@torch.no_grad()
def choose(
    chooser: Chooser,
    frozen: Sequence[Frozen],
    records: Sequence[ImageRecord],
    proposal_scores: Mapping[int, ProposalScores],
    config: Config,
) -> list[Picks]:
    """What a trained chooser picks of every image, by the selection settings of `config`."""
    chooser.mil.config = config.mil
    chooser.collate.proposal_scores = proposal_scores
    picks = []
    for one, record in zip(frozen, records, strict=True):
        result = chooser([one], [one.sample(record)])
        selected, expected_iou = result.selected.tolist(), result.expected_iou.tolist()
        picks.append(Picks(selected, expected_iou, result.posterior.numpy()))
    return picks
