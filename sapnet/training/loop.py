"""The training loop: step after step, a checkpoint now and then, the same figures when resumed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from sapnet.data.sampler import Step
from sapnet.data.samples import ImageRecord
from sapnet.errors import InvalidConfig, OutOfMemory, Stopped
from sapnet.segmenters.winograd.conv import LearningWinogradConv2d, multiply_less
from sapnet.training.averaging import WeightAverage
from sapnet.training.checkpoint import load_checkpoint, save_checkpoint
from sapnet.training.loader import BatchLoader, OnFailedImage
from sapnet.training.model import JointModel
from sapnet.training.optim import make_optimizer
from sapnet.training.step import StepMetrics, training_step
from sapnet.training.validation import Validate, Validation
from sapnet.types import Precision
from sapnet.utils import distributed
from sapnet.utils.resources import trim_memory

Report = Callable[[int, int, dict[str, float]], None]

GIVE_BACK_EVERY = 8  # steps


def train(
    model: JointModel,
    records: Sequence[ImageRecord],
    *,
    seed: int,
    checkpoint: Path,
    report: Report,
    should_stop: Callable[[], bool],
    warn: Callable[[str], None] = lambda _message: None,
    on_failed_image: OnFailedImage | None = None,
    validate: Validate | None = None,
) -> int:
    """Train to the end, from `checkpoint` where there is one.

    Order, crops, flips and negatives are functions of (seed, step), so a resumed run gives the
    figures of an unbroken one; those of an image depend on its place in the batch too, so several
    processes (`sapnet.utils.distributed`) give the figures of one, up to rounding. A step that does
    not fit into the GPU's memory is done again with half the batch, to the same share of the run;
    the checkpoint remembers. In the end the model has the averaged weights, with `train.average`,
    and those of the best validation, with `validate`.

    Args:
        model: trained in place.
        records: the images, read when needed.
        seed: of the run.
        checkpoint: the file; written now and then, and on a stop.
        report: called after each step with (step, of, losses).
        should_stop: asked after each step; a stop asked of one process stops all.
        warn: called with a message where the batch is halved.
        on_failed_image: called with an image that cannot be read, in whose place the next one is
            taken; without it the run fails.
        validate: called between steps with (model, step, of), the model in evaluation mode; gives a
            figure in [0, 1], the higher the better.

    Returns:
        How many bags were undecided.

    Raises:
        Stopped: on request, after the checkpoint is written.
        NonFiniteLoss: names the term.
        OutOfMemory: a batch of one does not fit.
        torch.OutOfMemoryError: the share of one of several processes does not fit.
        InvalidConfig: processes cannot train as one.
    """
    if distributed.processes() > 1 and model.config.backbone.fpn_norm == "batch":
        raise InvalidConfig("backbone.fpn_norm 'batch' sees one process's share; take another")
    make_fast(model, model.config.train.precision)
    optimizer = make_optimizer(model, model.config.train)
    with distributed.together():
        average = WeightAverage(model, model.config.train.average)
        validation = Validation(validate, model.config.train, checkpoint.with_name("best.pt"))
        done, undecided, batch = load_checkpoint(
            checkpoint, model, optimizer, warn, average, validation
        )
    if batch:
        take_batch(model, batch)
    distributed.start_alike(model, done)
    model.train()
    batches = BatchLoader(records, model.config, seed, on_failed_image)
    pending: list[StepMetrics] = []

    def report_pending(but: int = 0) -> None:
        nonlocal undecided
        while len(pending) > but:
            oldest = pending.pop(0)
            losses, dead = oldest.read()
            undecided += dead
            report(oldest.step.index + 1, oldest.step.total, losses)

    # a GPU's losses are read in the next step, in which the host waits for it anyway
    lag = 0 if model.device.type == "cpu" else 1
    with compiled(model, warn):
        while done < batches.total and not validation.over:
            step = batches.step(done)
            try:
                with distributed.together():
                    samples, generators = batches(step)
                pending.append(training_step(model, optimizer, samples, step, generators))
            except torch.OutOfMemoryError as error:
                if distributed.processes() > 1:  # the others are in the middle of the step
                    raise
                words = f"{error}".split(". ")[0] or "out of memory"
            else:
                words = ""
            if words:  # what the step held is let go by now
                optimizer.zero_grad(set_to_none=True)
                report_pending()
                warn(halve(model, len(records), step, words))
                batches = BatchLoader(records, model.config, seed, on_failed_image)
                done = done * batches.total // step.total
                continue
            average.update(step)
            done += 1
            if done % GIVE_BACK_EVERY == 0:
                trim_memory()
            report_pending(lag)
            stop = distributed.any_of(should_stop())
            every = model.config.train.checkpoint_every
            validation(model, step, average)
            if stop or done % every == 0 or done % step.per_epoch == 0 or done == batches.total:
                report_pending()  # so that no checkpoint has losses that are not finite
                with distributed.together():
                    if distributed.is_main():
                        batch = model.config.train.batch_size
                        kept = average.state(), validation.history
                        save_checkpoint(checkpoint, model, optimizer, done, undecided, batch, *kept)
            if stop and done < batches.total and not validation.over:
                raise Stopped(f"stopped on request after step {done} of {batches.total}")
    average.take()
    validation.take_best(model)
    model.labeler.conclude(model.segmenter)
    return undecided


def make_fast(model: torch.nn.Module, precision: Precision = "auto") -> None:
    """Make the same training take less time.

    Memory is channels-last, and on a CPU wide convolutions of float32 multiply less
    (`sapnet.segmenters.winograd.conv`). Parameters, their names and their objects stay.
    """
    model.to(memory_format=torch.channels_last)
    if next(model.parameters()).device.type == "cpu" and precision != "bfloat16":
        multiply_less(model, LearningWinogradConv2d)


@contextmanager
def compiled(model: JointModel, warn: Callable[[str], None]) -> Iterator[None]:
    """Run the segmenter compiled, where `train.compile` asks for it and there is a GPU.

    Not afterwards, when images come one by one, each in a size of its own.
    """
    wanted, gpu = model.config.train.compile, model.device.type != "cpu"
    if wanted and not gpu:
        warn("train.compile is left out: there is no GPU")
    if not (wanted and gpu):
        yield
        return
    model.segmenter.forward = torch.compile(model.segmenter.forward, dynamic=True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.segmenter.forward


def take_batch(model: JointModel, size: int) -> None:
    """Go on with another batch size."""
    train = replace(model.config.train, batch_size=size)
    model.config = replace(model.config, train=train)


def halve(model: JointModel, images: int, step: Step, words: str) -> str:
    """Train on with half the batch, whose learning rate is in proportion; what to tell the user.

    Raises:
        OutOfMemory: there is nothing to halve.
    """
    size = min(model.config.train.batch_size, images)
    if size == 1:
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
