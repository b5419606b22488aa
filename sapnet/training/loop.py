"""The training loop: step after step, a checkpoint now and then, the same figures when resumed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sapnet.config.schema import Config, TrainConfig
from sapnet.data.samples import ImageRecord, Sample, largest
from sapnet.errors import InvalidConfig, NonFiniteLoss, OutOfMemory, Stopped
from sapnet.labelers.affinity.loss import affinity_loss
from sapnet.labelers.affinity.refine import Guides, refine
from sapnet.segmenters.solov2 import SoloTargets, assign, solo_loss
from sapnet.segmenters.winograd.conv import LearningWinogradConv2d, multiply_less
from sapnet.training.loader import Batches, OnBad, Step
from sapnet.training.model import MASK_STRIDE, Pass, SapNet, mask_grid, quarter_size
from sapnet.types import Precision
from sapnet.utils import distributed
from sapnet.utils.device import async_to_host, to_device
from sapnet.utils.files import atomic_write
from sapnet.utils.resources import trim_memory

Report = Callable[[int, int, dict[str, float]], None]

GIVE_BACK_EVERY = 8  # steps


@dataclass(frozen=True)
class Said:
    """What a step says of itself, on its way from the GPU: the losses by name, and how many bags
    had no best, both of the whole batch."""

    step: Step
    names: tuple[str, ...]
    values: Callable[[], list[Tensor]]

    def read(self) -> tuple[dict[str, float], int]:
        """Raises NonFiniteLoss."""
        *losses, undecided = self.values()[0].tolist()
        for name, value in zip(self.names, losses, strict=True):
            if not abs(value) < float("inf"):
                raise NonFiniteLoss(name, self.step.index, value)
        return dict(zip(self.names, losses, strict=True)), int(undecided)


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
    an image depend on its place in the batch too, so several processes
    (sapnet/utils/distributed.py) give the figures of one, up to rounding. A stop asked of one
    process stops all.
    Errors: NonFiniteLoss names the term; OutOfMemory where a batch of one does not fit;
    InvalidConfig where processes cannot train as one.
    """
    if distributed.processes() > 1 and model.config.backbone.fpn_norm == "batch":
        raise InvalidConfig("backbone.fpn_norm 'batch' sees one process's share; take another")
    make_fast(model, model.config.train.precision)
    optimizer = make_optimizer(model, model.config.train)
    with distributed.together():
        done, undecided, batch = load_checkpoint(checkpoint, model, optimizer)
    if batch:
        take_batch(model, batch)
    distributed.start_alike(model, done)
    model.train()
    batches = Batches(records, model.config, seed, on_bad)
    said: list[Said] = []

    def tell(but: int = 0) -> None:
        nonlocal undecided
        while len(said) > but:
            oldest = said.pop(0)
            losses, dead = oldest.read()
            undecided += dead
            report(oldest.step.index + 1, oldest.step.total, losses)

    # a GPU's losses are read in the next step, in which the host waits for it anyway
    lag = 0 if device_of(model).type == "cpu" else 1
    with compiled(model, warn):
        while done < batches.total:
            step = batches.step(done)
            try:
                with distributed.together():
                    samples, generators = batches(step)
                said.append(training_step(model, optimizer, samples, step, generators))
            except torch.OutOfMemoryError as error:
                words = f"{error}".split(". ")[0] or "out of memory"
            else:
                words = ""
            if words:  # what the step held is let go by now
                optimizer.zero_grad(set_to_none=True)
                tell()
                warn(halve(model, len(records), step, words))
                batches = Batches(records, model.config, seed, on_bad)
                done = done * batches.total // step.total
                continue
            done += 1
            if done % GIVE_BACK_EVERY == 0:
                trim_memory()
            tell(lag)
            stop = distributed.any_of(should_stop())
            every = model.config.train.checkpoint_every
            if stop or done % every == 0 or done % step.per_epoch == 0 or done == batches.total:
                tell()  # what is kept is known to be sound
                with distributed.together():
                    if distributed.is_main():
                        batch = model.config.train.batch_size
                        save_checkpoint(checkpoint, model, optimizer, done, undecided, batch)
            if stop and done < batches.total:
                raise Stopped(f"stopped on request after step {done} of {batches.total}")
    return undecided


def make_fast(model: torch.nn.Module, precision: Precision = "auto") -> None:
    """The same training in less time: memory is channels-last, and on a CPU wide convolutions of
    float32 multiply less (sapnet/segmenters/winograd/conv.py). Parameters, their names and their
    objects stay."""
    model.to(memory_format=torch.channels_last)
    if device_of(model).type == "cpu" and precision != "bfloat16":
        multiply_less(model, LearningWinogradConv2d)


@contextmanager
def compiled(model: SapNet, warn: Callable[[str], None]) -> Iterator[None]:
    """Within it the segmenter runs compiled, where `train.compile` asks for it and there is a GPU.
    Afterwards images come one by one, each in a size of its own."""
    wanted, gpu = model.config.train.compile, device_of(model).type != "cpu"
    if wanted and not gpu:
        warn("train.compile is left out: there is no GPU")
    if not (wanted and gpu):
        yield
        return
    model.solo.forward = torch.compile(model.solo.forward, dynamic=True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.solo.forward


def device_of(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


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


def training_step(
    model: SapNet,
    optimizer: torch.optim.Optimizer,
    samples: list[Sample],
    step: Step,
    generators: list[torch.Generator],
) -> Said:
    """Forward, losses, backward, update of a batch, of which `samples` are this process's share.

    On a GPU the host waits once: for what MIL picked, whose masks it then makes."""
    config = model.config
    trust = step.share >= config.mil.completeness_warmup
    guided = config.refine.enabled and step.share >= config.refine.warmup
    frame = distributed.global_max(*largest(samples))
    result = model(samples, generators, trust, (frame[0], frame[1]), guided)
    losses = all_losses(model, samples, result)
    told = [*losses.values(), result.mil.undecided]
    told = [value.detach().to(result.images.device, torch.float32) for value in told]
    del result  # its guides are large, and the backward pass needs the room
    said = Said(step, tuple(losses), async_to_host(distributed.global_sum(torch.stack(told))))
    set_learning_rate(optimizer, config.train, step)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    distributed.sum_gradients(model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
    optimizer.step()
    return said


def all_losses(model: SapNet, samples: list[Sample], result: Pass) -> dict[str, Tensor]:
    """The terms of Eq. 28 and L_sasd, each with its weight in it; L_aff where there are guides."""
    config = model.config
    targets, masks = solo_targets(samples, result, model)
    device = result.images.device
    own = [target.to(device) for target in targets]
    masks = [to_device(mask, device) for mask in masks]
    solo, predicted = solo_loss(result.output, own, masks, config.solo)
    losses = {**solo, **result.mil.losses}
    if result.guides is not None:
        losses["aff"] = config.refine.loss_weight * refinement_loss(
            config, result, result.guides, own, masks, predicted
        )
    return losses


def solo_targets(
    samples: list[Sample], result: Pass, model: SapNet
) -> tuple[list[SoloTargets], list[Tensor]]:
    """Targets and masks (N, h, w) at stride 4 of each image, from what MIL picked; on the CPU."""
    shape = quarter_size(result.images)
    (selected,) = async_to_host(result.mil.selected)()
    targets, masks = [], []
    for index, sample in enumerate(samples):
        mine = result.bags.image == index
        masks.append(mask_grid(sample, selected[mine].numpy(), shape, MASK_STRIDE))
        targets.append(
            assign(
                masks[-1],
                result.bags.labels[mine],
                model.config.solo,
                model.solo.head.num_classes,
            )
        )
    return targets, masks


def refinement_loss(
    config: Config,
    result: Pass,
    guides: list[Guides],
    targets: list[SoloTargets],
    masks: list[Tensor],
    predicted: list[Tensor],
) -> Tensor:
    """L_aff (Eq. 26) over the images of the batch."""
    terms = []
    places = result.bags.image
    per_image = zip(targets, masks, predicted, guides, strict=True)
    for index, (target, mask, probs, along) in enumerate(per_image):
        rows = target.answered
        own = to_device((places == index).nonzero().squeeze(1), mask.device)
        boxes = result.mil.boxes[own][rows] / MASK_STRIDE
        refined = refine(probs[rows], along, boxes=boxes, config=config.refine)
        areas = mask[rows].flatten(1).sum(1)
        terms.append(affinity_loss(probs[rows], refined, boxes, areas))
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
    with atomic_write(path) as file:
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
