"""Training of the teacher: the inside from what bags agree on, the mask from their posterior."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import TeacherConfig
from sapnet.data.sampler import Sampler
from sapnet.labelers.sapnet.teacher.dataset import TeacherDataset, TeacherExample
from sapnet.labelers.sapnet.teacher.network import Teacher
from sapnet.labelers.sapnet.teacher.score import overlap_of


def teacher_steps(count: int, config: TeacherConfig) -> int:
    """The number of steps on a dataset of `count` images."""
    sampler = Sampler(count=count, batch_size=config.batch_size, seed=0)
    return max(sampler.steps_per_epoch * config.epochs, config.min_steps)


def fit_teacher(
    dataset: TeacherDataset,
    config: TeacherConfig,
    *,
    seed: int,
    report: Callable[[int, int, dict[str, float]], None] | None = None,
    learnt: Sequence[int] | None = None,
) -> Teacher:
    """Train a teacher from nothing.

    The order of images and of their points is a function of (seed, step).

    Args:
        dataset: an example an image.
        config: of the teacher.
        seed: of its weights and of all draws.
        report: called after each step with (step, of, losses); no losses where the step's images
            have no object.
        learnt: indices of the examples to train on; None is all.
    """
    indices = range(len(dataset)) if learnt is None else learnt
    sampler = Sampler(count=len(indices), batch_size=config.batch_size, seed=seed)
    total = teacher_steps(len(indices), config)
    first = dataset[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = Teacher(
            in_channels=[level.shape[0] for level in first.features],
            channels=config.channels,
            hidden=config.hidden,
        )
    teacher = teacher.to(first.points.device).train()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=0.0, weight_decay=0.01)
    for step in range(total):
        rate = config.learning_rate * min(1.0, (step + 1) / 20)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * step / total))
        generator = sampler.generator(step)
        use_overlap = step >= config.warmup * total
        terms = [
            part
            for n in sampler.batch(step)
            for part in example_losses(teacher, dataset[indices[n]], config, generator, use_overlap)
        ]
        losses = {}
        if terms:  # images without an object teach nothing
            inside, mask = torch.stack([torch.stack(pair) for pair in terms]).mean(0)
            optimizer.zero_grad(set_to_none=True)
            (inside + mask).backward()
            torch.nn.utils.clip_grad_norm_(teacher.parameters(), 5.0)
            optimizer.step()
            losses = {"object": float(inside.detach()), "mask": float(mask.detach())}
        if report is not None:
            report(step + 1, total, losses)
    return teacher.eval()


def example_losses(
    teacher: Teacher,
    example: TeacherExample,
    config: TeacherConfig,
    generator: torch.Generator,
    use_overlap: bool,
) -> list[tuple[Tensor, Tensor]]:
    """Both losses of each point drawn from an image."""
    if not len(example):
        return []
    drawn = torch.randperm(len(example), generator=generator)[: config.points_per_image]
    inside, mask = teacher(example, drawn.to(example.points.device))
    pairs = []
    for n, row in enumerate(drawn.tolist()):
        masks = example.masks[row].float() / 255
        allowed = example.allowed[row]
        weight = example.prior[row]
        if use_overlap:
            overlap = overlap_of(mask[n].detach().sigmoid(), masks)
            weight = weight + config.agreement * overlap.clamp(min=1e-3).log()
        weight = weight.masked_fill(~allowed, float("-inf")).softmax(0)
        expected = (weight[:, None, None] * masks).sum(0)
        pairs.append(
            (
                0.5 * agreed_loss(inside[n], masks[allowed], config),
                dice(mask[n].sigmoid(), expected),
            )
        )
    return pairs


def agreed_loss(logits: Tensor, masks: Tensor, config: TeacherConfig) -> Tensor:
    """Cross-entropy where the masks of the bag agree.

    Cells that (nearly) all of its masks cover are positive, cells that none covers are negative,
    both weighing the same; the rest is ignored. Where no cell reaches the share asked for
    (`config.held`), those of the largest share are positive.

    Args:
        logits: (G, G).
        masks: (M, G, G) in [0, 1].
        config: the shares from which on cells count.
    """
    votes = masks.mean(0)
    positive = (votes >= min(config.held, float(votes.max()) - 1e-3)).float()
    negative = (votes <= config.free).float()
    inside = (F.softplus(-logits) * positive).sum() / positive.sum().clamp(min=1e-3)
    outside = (F.softplus(logits) * negative).sum() / negative.sum().clamp(min=1e-3)
    return inside + outside


def dice(probs: Tensor, target: Tensor) -> Tensor:
    """1 − Dice of two soft masks (G, G), squares in the denominator as in SOLOv2."""
    shared = (probs * target).sum()
    return 1 - 2 * shared / (probs.square().sum() + target.square().sum() + 1e-4)
