"""The training loop: step after step, a checkpoint now and then, the same figures when resumed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sapnet import distributed
from sapnet.affinity.refine import refine
from sapnet.config import Config, TrainConfig
from sapnet.data.images import ImageProblem
from sapnet.data.loader import ImageRecord, Sample, Sampler, largest, load_sample
from sapnet.errors import InvalidConfig, NonFiniteLoss, OutOfMemory, Stopped
from sapnet.losses.affinity import affinity_loss
from sapnet.model import MASK_STRIDE, Pass, SapNet, mask_grid, quarter_size
from sapnet.ops.winograd import LearningWinogradConv2d, multiply_less
from sapnet.pace import give_memory_back
from sapnet.solo import InstanceMasks, SoloTargets, assign, solo_loss
from sapnet.types import ImageInfo
from sapnet.whole import write_whole

Report = Callable[[int, int, dict[str, float]], None]
OnBad = Callable[[ImageInfo, ImageProblem], None]

GIVE_BACK_EVERY = 8  # steps


@dataclass(frozen=True)
class Step:
    """Where a step stands in the run: its index, of how many, and the epoch's length."""

    index: int
    total: int
    per_epoch: int

    @property
    def share(self) -> float:
        return self.index / max(self.total, 1)


def train(
    model: SapNet,
    records: Sequence[ImageRecord],
    *,
    seed: int,
    checkpoint: Path,
    report: Report,
    should_stop: Callable[[], bool],
    warn: Callable[[str], None] = lambda _message: None,
    on_bad: OnBad | None = None,
) -> int:
    """Train to the end, from `checkpoint` where there is one. Returns how many bags were undecided.

    records: the images, read when needed. report: called after each step with (step, of, losses).
    A stop on request writes the checkpoint and raises Stopped. on_bad: told of an image that cannot
    be read, in whose place the next one is taken; without it the run fails. A step that does not
    fit into the GPU's memory is done again with half the batch, to the same share of the run, and
    `warn` is told; the checkpoint remembers. Order, crops, flips and negatives
    are functions of (seed, step), so a resumed run gives the figures of an unbroken one; those of
    an image depend on its place in the batch too, so several processes (sapnet/distributed.py)
    give the figures of one, up to rounding. A stop asked of one process stops all.
    Errors: NonFiniteLoss names the term; OutOfMemory where a batch of one does not fit;
    InvalidConfig where processes cannot train as one.
    """
    if distributed.processes() > 1 and model.config.backbone.fpn_norm == "batch":
        raise InvalidConfig("backbone.fpn_norm 'batch' sees one process's share; take another")
    make_fast(model)
    optimizer = make_optimizer(model, model.config.train)
    with distributed.together():
        done, undecided, batch = load_checkpoint(checkpoint, model, optimizer)
    if batch:
        take_batch(model, batch)
    distributed.start_alike(model, done)
    model.train()
    sampler, total = plan(model, records, seed)
    while done < total:
        step = Step(done, total, sampler.steps_per_epoch)
        try:
            with distributed.together():
                samples, generators = draw(records, sampler, step, model.config, on_bad)
            losses, dead = training_step(model, optimizer, samples, step, generators)
        except torch.OutOfMemoryError as error:
            words = f"{error}".split(". ")[0] or "out of memory"
        else:
            words = ""
        if words:  # what the step held is let go by now
            optimizer.zero_grad(set_to_none=True)
            warn(halve(model, len(records), step, words))
            sampler, total = plan(model, records, seed)
            done = done * total // step.total
            continue
        undecided += dead
        done += 1
        if done % GIVE_BACK_EVERY == 0:
            give_memory_back()
        report(done, total, losses)
        stop = distributed.any_of(should_stop())
        every = model.config.train.checkpoint_every
        if stop or done % every == 0 or done % step.per_epoch == 0:
            with distributed.together():
                if distributed.is_main():
                    batch = model.config.train.batch_size
                    save_checkpoint(checkpoint, model, optimizer, done, undecided, batch)
        if stop and done < total:
            raise Stopped(f"stopped on request after step {done} of {total}")
    return undecided


def make_fast(model: SapNet) -> None:
    """The same training in less time: memory is channels-last, and on a CPU wide convolutions
    multiply less (sapnet/ops/winograd.py). Parameters, their names and their objects stay."""
    model.to(memory_format=torch.channels_last)
    if next(model.parameters()).device.type == "cpu":
        multiply_less(model, LearningWinogradConv2d)


def plan(model: SapNet, records: Sequence[ImageRecord], seed: int) -> tuple[Sampler, int]:
    """Which images make which step, and how many steps there are, at the model's batch size."""
    config = model.config.train
    upright = [record.info.height > record.info.width for record in records]
    sampler = Sampler(count=len(records), batch_size=config.batch_size, seed=seed, upright=upright)
    return sampler, steps_total(len(records), config)


def take_batch(model: SapNet, size: int) -> None:
    train = replace(model.config.train, batch_size=size)
    model.config = replace(model.config, train=train)


def halve(model: SapNet, images: int, step: Step, words: str) -> str:
    """Train on with half the batch, whose learning rate is in proportion; what to tell the user.

    Raises OutOfMemory where there is nothing to halve; so does one of several processes, since the
    others are in the middle of the step.
    """
    size = min(model.config.train.batch_size, images)
    if size == 1 or distributed.processes() > 1:
        raise OutOfMemory(
            f"the GPU's memory is too small for a batch of {size} ({words}); "
            "a smaller train.batch_size, data.short_sides or data.max_long_side needs less"
        )
    take_batch(model, size // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return (
        f"out of GPU memory at step {step.index + 1} of {step.total} with a batch of {size}: "
        f"the training goes on with {size // 2}, its learning rate in proportion"
    )


def steps_total(count: int, config: TrainConfig) -> int:
    """How many steps a run over `count` images takes: its epochs, or `min_steps` where more."""
    sampler = Sampler(count=count, batch_size=config.batch_size, seed=0)
    return max(sampler.steps_per_epoch * config.epochs, config.min_steps)


def draw(
    records: Sequence[ImageRecord],
    sampler: Sampler,
    step: Step,
    config: Config,
    on_bad: OnBad | None = None,
) -> tuple[list[Sample], list[torch.Generator]]:
    """This process's images of a step, resized and flipped as their generators say, and these."""
    sides = config.data.short_sides
    side = sides[int(torch.randint(len(sides), (), generator=sampler.generator(step.index)))]
    samples, generators = [], []
    for place, index in distributed.share(list(enumerate(sampler.batch(step.index), start=1))):
        generator = sampler.generator(step.index, place)
        flip = config.data.flip and bool(torch.rand((), generator=generator) < 0.5)
        samples.append(readable(records, index, config, side, flip, on_bad))
        generators.append(generator)
    return samples, generators


def readable(
    records: Sequence[ImageRecord],
    index: int,
    config: Config,
    side: int,
    flip: bool,
    on_bad: OnBad | None,
) -> Sample:
    """The sample of an image, or of the first one after it that can be read."""
    while True:
        try:
            return load_sample(records[index], config.data, side, flip)
        except ImageProblem as error:
            if on_bad is None or distributed.processes() > 1:  # the others would not know of it
                raise
            on_bad(records[index].info, error)
            index = (index + 1) % len(records)


def training_step(
    model: SapNet,
    optimizer: torch.optim.Optimizer,
    samples: list[Sample],
    step: Step,
    generators: list[torch.Generator],
) -> tuple[dict[str, float], int]:
    """Forward, losses, backward, update. Returns the losses by name and the undecided bags, those
    of the whole batch, of which `samples` are this process's share."""
    config = model.config
    trust = step.share >= config.mil.completeness_warmup
    frame = distributed.global_max(*largest(samples))
    result = model(samples, generators, trust, (frame[0], frame[1]))
    losses = all_losses(model, samples, result, step)
    values = distributed.global_sum(torch.stack([loss.detach() for loss in losses.values()]))
    for name, value in zip(losses, values.tolist(), strict=True):
        if not abs(value) < float("inf"):
            raise NonFiniteLoss(name, step.index, value)
    set_learning_rate(optimizer, config.train, step)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    distributed.sum_gradients(model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
    optimizer.step()
    undecided = distributed.global_sum(int(result.mil.undecided))
    return dict(zip(losses, values.tolist(), strict=True)), undecided


def all_losses(model: SapNet, samples: list[Sample], result: Pass, step: Step) -> dict[str, Tensor]:
    """The terms of Eq. 28 and L_sasd, each with its weight in it."""
    config = model.config
    targets, masks = solo_targets(samples, result, model)
    solo, predicted = solo_loss(result.output, targets, masks, config.solo)
    losses = {**solo, **result.mil.losses}
    if config.refine.enabled and step.share >= config.refine.warmup:
        losses["aff"] = config.refine.loss_weight * refinement_loss(
            config, result, masks, predicted
        )
    return losses


def solo_targets(
    samples: list[Sample], result: Pass, model: SapNet
) -> tuple[list[SoloTargets], list[Tensor]]:
    """Targets and masks (N, h, w) at stride 4 of each image, from what MIL picked."""
    shape = quarter_size(result.images)
    selected, labels = result.mil.selected.cpu().numpy(), result.bags.labels
    image = result.bags.image.cpu().numpy()
    targets, masks = [], []
    for index, sample in enumerate(samples):
        mask = mask_grid(sample, selected[image == index], shape, MASK_STRIDE).to(labels.device)
        masks.append(mask)
        own = labels[result.bags.image == index]
        targets.append(assign(mask, own, model.config.solo, model.solo.head.num_classes))
    return targets, masks


def refinement_loss(
    config: Config, result: Pass, masks: list[Tensor], predicted: list[InstanceMasks]
) -> Tensor:
    """L_aff (Eq. 26) over the images of the batch."""
    terms = []
    for index, (mask, instances) in enumerate(zip(masks, predicted, strict=True)):
        use = instances.valid
        boxes = result.mil.boxes[result.bags.image == index][use] / MASK_STRIDE
        refined = refine(
            instances.probs[use],
            result.images[index],
            [level[index] for level in result.features],
            boxes=boxes,
            config=config.refine,
        )
        areas = mask[use].flatten(1).sum(1)
        terms.append(affinity_loss(instances.probs[use], refined, boxes, areas))
    total = torch.stack(terms).sum() if terms else result.output.mask_features.sum()
    return total / distributed.global_sum(len(terms))


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over what is not frozen; norms and biases are not decayed under AdamW."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=0.0,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
    flat = [p for p in parameters if p.ndim < 2]
    deep = [p for p in parameters if p.ndim >= 2]
    groups: list[dict[str, Any]] = [{"params": deep}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: Step) -> None:
    """Linear warm-up, then a tenth at each drop; scaled by the batch (`reference_batch`)."""
    rate = config.learning_rate * config.batch_size / config.reference_batch
    warmup = min(config.warmup_steps, step.total // 4)
    if step.index < warmup:
        rate *= max((step.index + 1) / (warmup + 1), 0.001)
    rate *= 0.1 ** sum(step.share >= drop for drop in config.drops)
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    undecided: int,
    batch_size: int,
) -> None:
    """Everything a run needs to go on as if it had never stopped."""
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "undecided": undecided,
        "batch_size": batch_size,
    }
    with write_whole(path) as file:
        torch.save(state, file)


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, int, int]:
    """Take a run up where it was: (steps done, undecided bags so far, batch size). (0, 0, 0) where
    there is none."""
    if not path.exists():
        return 0, 0, 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():  # fused optimizers take the parameter's layout for granted
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter).copy_(value)
    return int(state["step"]), int(state["undecided"]), int(state.get("batch_size", 0))
