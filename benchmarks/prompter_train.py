"""Training of the prompter in slices: each resumes the last one's state and leaves a new one.

A slice ends after a time, and is saved every few minutes and on SIGTERM. The rate is constant, so
that any number of slices may follow; what is measured and shipped is the running mean of the
weights.
"""

import math
import os
import random
import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import prompter_data as data
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor, nn

from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.network import Drawn, Features, Prompter, Windows
from sapnet.proposals.prompter.windows import FINE, GRID, Prompts

CROPS = 4  # a step, of eight windows each
FROZEN = 3  # the stem and so many stages of the body stay as they are
_RATE, _BODY_RATE = 1.5e-3, 1e-4
BODY_FROM = 4000  # steps before the rest of the body learns
_SAVE_EVERY = 240.0  # seconds
_OTHER_MASK = 0.35  # of the further clicks refine a mask that the network has not drawn
_SAME_CLICKS = 0.25  # of the further turns have the mask, and no further click
_AGAIN = (0.4, 0.15)  # of the steps with one more click, and of those with two


@dataclass
class State:
    """What a slice takes over from the last one."""

    step: int = 0
    windows: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    seeds: list[int] = field(default_factory=list)


class Trainer:
    """The network, its optimiser, the running mean of its weights."""

    def __init__(self, path: Path, packaged: bool = False) -> None:
        """path: of the state. Where there is none yet, the body starts from ImageNet's weights and
        the rest from chance, or (packaged) all from the weights that are shipped."""
        self.path = path
        self.model = Prompter().to(memory_format=torch.channels_last)
        self.model.body.load_state_dict(weights.lite0_state())
        if packaged:
            self.model.load_state_dict(weights.packaged_state())
        own = [p for n, p in self.model.named_parameters() if not n.startswith("body.")]
        for parameter in self.model.body.parameters():
            parameter.requires_grad_(False)
        tuned = [
            p
            for stage in self.model.body.stages[FROZEN:]
            for n, p in stage.named_parameters()
            if "depthwise" not in n
        ]
        for parameter in tuned:
            parameter.requires_grad_(True)
        self.tuned = tuned
        self.optimizer = torch.optim.AdamW(
            [{"params": own, "rate": _RATE}, {"params": tuned, "rate": _BODY_RATE}],
            lr=_RATE,
            weight_decay=1e-3,
        )
        self.mean = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.state = State()
        if path.exists():
            saved = torch.load(path, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.mean = saved["mean"]
            self.state = State(**saved["state"])

    def save(self, path: Path | None = None) -> None:
        path = path or self.path
        part = path.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "mean": self.mean,
                "state": vars(self.state),
            },
            part,
        )
        os.replace(part, path)

    def averaged(self) -> Prompter:
        model = Prompter().to(memory_format=torch.channels_last)
        model.load_state_dict(self.mean)
        return model.eval()

    def features(self, batch: data.Batch) -> Features:
        """bfloat16 where that is fast: everywhere but where a 5×5 depthwise layer learns."""
        colours = (batch.colours.float() - 127) / 128
        colours = colours.contiguous(memory_format=torch.channels_last)
        body, learning = self.model.body, self.state.step >= BODY_FROM
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            x = body.stem(colours)
            outs = []
            for index, stage in enumerate(body.stages):
                if learning and index == FROZEN:
                    break
                x = stage(x)
                outs.append(x)
        if learning:
            x = x.float()
            for stage in body.stages[FROZEN:]:
                x = stage(x)
                outs.append(x)
        with torch.autocast("cpu", torch.bfloat16):
            levels = self.model.pyramid([outs[i] for i in (1, 2, 4, 6)])
        return Features([level.float() for level in levels], colours, batch.sizes)

    def step(self, batch: data.Batch, rng: random.Random, factor: float = 1.0) -> dict[str, float]:
        """One update; -> figures of it. factor: of the learning rate."""
        self.model.train()
        warm = factor * min(1.0, (self.state.step + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * warm
        features = self.features(batch)
        windows = self.model.windows(features, batch.images, batch.boxes)
        positive = [c[None] for c in batch.clicks]
        negative = [c[:0] for c in positive]
        mask: Tensor | None = None
        losses, figures = [], {}
        draw = rng.random()
        rounds = 1 + (draw < _AGAIN[0]) + (draw < _AGAIN[1])
        for turn in range(rounds):
            prompts = Prompts(positive, negative, batch.others, mask)
            with torch.autocast("cpu", torch.bfloat16):
                drawn = self.model(features, windows, prompts)
            loss, seen = _loss(drawn, batch, windows, self.model, rng)
            losses.append(loss)
            figures |= {f"{k}{turn}": v for k, v in seen.items()}
            if turn + 1 < rounds:
                mask = _picked(drawn)
                if rng.random() < _OTHER_MASK:
                    mask = _other_masks(drawn, batch, windows, rng)
                if rng.random() >= _SAME_CLICKS:
                    positive, negative = _one_more(mask, batch, positive, negative)
        total = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
        self.optimizer.step()
        self._average()
        self.state.step += 1
        self.state.windows += len(batch.boxes)
        return figures

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(0.998, (1 + self.state.step) / (10 + self.state.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.mean[name].lerp_(value, 1 - decay)
            else:
                self.mean[name].copy_(value)


def _picked(drawn: Drawn) -> Tensor:
    """(N, FINE, FINE) probabilities of the mask of the highest estimate."""
    best = drawn.iou.argmax(1)
    logits = drawn.mask_logits.detach()[torch.arange(len(best)), best]
    return torch.sigmoid(logits)


def _other_masks(drawn: Drawn, batch: data.Batch, windows: Windows, rng: random.Random) -> Tensor:
    """(N, FINE, FINE) middling masks that something else than the network might have drawn."""
    masks = _candidates(drawn, batch, windows, rng)
    chosen = masks[torch.arange(len(masks)), torch.randint(masks.shape[1], (len(masks),))]
    return 0.02 + 0.96 * chosen


def _one_more(
    mask: Tensor, batch: data.Batch, positive: list[Tensor], negative: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """A click in the middle of each window's largest error."""
    positive, negative = list(positive), list(negative)
    wrong = ((mask > 0.5) != (batch.target > 0.5)).numpy()
    for index in range(len(wrong)):
        place = deepest(wrong[index])
        if place is None:
            continue
        row, column = place
        x0, y0, x1, _ = batch.boxes[index].tolist()
        cell = (x1 - x0) / FINE
        click = torch.tensor([[x0 + (column + 0.5) * cell, y0 + (row + 0.5) * cell]])
        if batch.target[index, row, column] > 0.5:
            positive[index] = torch.cat([positive[index], click])
        else:
            negative[index] = torch.cat([negative[index], click])
    return positive, negative


def deepest(wrong: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the middle of the largest connected part; None where nothing is set."""
    parts, count = label(wrong)
    if not count:
        return None
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    depth = distance_transform_edt(np.pad(parts == largest, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)


def _loss(
    drawn: Drawn, batch: data.Batch, windows: Windows, model: Prompter, rng: random.Random
) -> tuple[Tensor, dict[str, float]]:
    logits = drawn.mask_logits
    target = batch.target[:, None].expand_as(logits)
    probs = torch.sigmoid(logits)
    around = F.avg_pool2d(batch.target[:, None], 3, 1, 1)
    weight = 1 + 3 * ((around > 0.03) & (around < 0.97)).float()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross = (cross * weight).mean((2, 3)) * 2
    shared = (probs * target).sum((2, 3))
    dice = 1 - (2 * shared + 1) / (probs.sum((2, 3)) + target.sum((2, 3)) + 1)
    each = cross + dice
    loss = each.amin(1).mean() + 0.05 * each.mean()
    iou = _iou((logits.detach() > 0).float(), batch)
    rated = F.smooth_l1_loss(drawn.iou, iou, beta=0.1)
    others = _candidates(drawn, batch, windows, rng)
    with torch.no_grad():
        true = _iou(others, batch)
    judged = model.judge(drawn, F.avg_pool2d(others, FINE // GRID))
    rated_others = F.smooth_l1_loss(judged, true, beta=0.1)
    fits = batch.fits
    best = iou.amax(1)
    top = iou.gather(1, drawn.iou.argmax(1, keepdim=True))[:, 0]
    figures = {
        "mask": loss.item(),
        "rated": rated.item(),
        "others": rated_others.item(),
        "best": best[fits].mean().item(),
        "top": top[fits].mean().item(),
    }
    return loss + 1.5 * rated + 0.7 * rated_others, figures


def _iou(masks: Tensor, batch: data.Batch) -> Tensor:
    """(N, K) of binary masks (N, K, FINE, FINE) with the whole objects, parts outside included."""
    inside = (masks * batch.target[:, None]).sum((2, 3))
    union = masks.sum((2, 3)) + batch.area[:, None] - inside
    return inside / union.clamp(min=1)


def _candidates(drawn: Drawn, batch: data.Batch, windows: Windows, rng: random.Random) -> Tensor:
    """(N, 3, FINE, FINE) binary masks to judge that the network has not drawn: its own
    probabilities cut elsewhere, the object shifted, grown or shrunk, and what is of the click's
    colour within a disc."""
    n = len(batch.boxes)
    best = torch.randint(drawn.mask_logits.shape[1], (n,))
    cut = torch.empty(n, 1, 1).uniform_(-2.5, 2.5)
    one = drawn.mask_logits.detach()[torch.arange(n), best] > cut
    reach = rng.choice((1, 2, 4))
    coarse = F.avg_pool2d(batch.target[:, None], 2)
    sign = rng.choice((1, -1))
    coarse = sign * F.max_pool2d(sign * coarse, 2 * reach + 1, 1, reach)
    shift = rng.randint(-3, 3), rng.randint(-3, 3)
    two = F.interpolate(torch.roll(coarse, shift, (2, 3)), scale_factor=2.0)[:, 0] > 0.5
    steps = torch.arange(FINE) + 0.5
    cell = ((batch.boxes[:, 2] - batch.boxes[:, 0]) / FINE)[:, None]
    x, y = ((batch.clicks - batch.boxes[:, :2]) / cell).unbind(1)
    away = (
        (steps[None, None] - x[:, None, None]) ** 2 + (steps[:, None] - y[:, None, None]) ** 2
    ).sqrt()
    centre = (away <= away.amin((1, 2), keepdim=True) + 1.5).float()[:, None]
    own = (windows.colours * centre).sum((2, 3)) / centre.sum((2, 3))
    alike = (windows.colours - own[:, :, None, None]).square().sum(1).sqrt()
    like = torch.empty(n, 1, 1).uniform_(0.1, 0.9)
    radius = torch.empty(n, 1, 1).uniform_(4, 40)
    three = (alike < like) & (away < radius)
    masks = torch.stack([one, two, three], 1)
    return masks.float()


@torch.inference_mode()
def validate(model: Prompter, chosen: list[data.Entry], most: int = 40) -> dict[str, str]:
    """Mean IoU of the best and of the picked mask on fitting windows, by set."""
    rng = random.Random(5)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for entry in chosen:
        counts[entry.set] += 1
        if counts[entry.set] > most:
            continue
        crop = data.cut(entry, rng, plain=True)
        if crop is None:
            continue
        batch = data.collate([crop])
        colours = ((batch.colours.float() - 127) / 128).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16):
            features = model.features(colours, batch.sizes)
            windows = model.windows(features, batch.images, batch.boxes)
            positive = [c[None] for c in batch.clicks]
            prompts = Prompts(positive, [c[:0] for c in positive], batch.others)
            drawn = model(features, windows, prompts)
        iou = _iou((drawn.mask_logits > 0).float(), batch)
        top = iou.gather(1, drawn.iou.argmax(1, keepdim=True))[:, 0]
        found[entry.set] += list(zip(iou.amax(1).tolist(), top.tolist(), strict=True))
    return {k: "/".join(f"{v:.3f}" for v in np.mean(pairs, 0)) for k, pairs in found.items()}


def run(
    root: Path,
    work: Path,
    name: str,
    *,
    seconds: float,
    free: bool,
    decay: bool = False,
    packaged: bool = False,
    validate_every: int = 1000,
) -> None:
    """One slice. root: folder of the sets. work: for state and log. free: see `entries`.

    packaged: start from the shipped weights where there is no state. decay: bring the rate down to
    nothing over this slice, and keep the outcome as NAME-final
    beside the state, from which other slices may go on.
    """
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(work / f"{name}.pt", packaged)
    if decay:
        name = f"{name}-final"
        trainer.path = work / f"{name}.pt"
    seed = random.SystemRandom().getrandbits(31)
    trainer.state.seeds.append(seed)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    chosen = data.entries(root, "train", free=free)
    held = data.entries(root, "val", free=False)  # to look at, not to learn from
    stream = iter(
        torch.utils.data.DataLoader(
            data.Stream(chosen, CROPS, seed), batch_size=None, num_workers=1, prefetch_factor=6
        )
    )
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    began, cpu = time.monotonic(), time.process_time()
    base = trainer.state.seconds, trainer.state.cpu
    saved, waited, seen = began, 0.0, defaultdict[str, list[float]](list)
    _log(
        work, name, f"slice of {seconds:.0f} s from step {trainer.state.step}, {len(chosen)} images"
    )
    while not stop and time.monotonic() - began < seconds:
        before = time.monotonic()
        batch = next(stream)
        waited += time.monotonic() - before
        left = 1 - (time.monotonic() - began) / seconds
        factor = max(left, 0.02) if decay else 1.0
        for key, value in trainer.step(batch, rng, factor).items():
            if not math.isnan(value):
                seen[key].append(value)
        state = trainer.state
        state.seconds = base[0] + time.monotonic() - began
        state.cpu = base[1] + time.process_time() - cpu
        if state.step % 100 == 0:
            means = " ".join(f"{k} {np.mean(v):.3f}" for k, v in sorted(seen.items()))
            _log(work, name, f"{_place(state)} waited {waited:.0f} s | {means}")
            seen.clear()
            waited = 0.0
        if time.monotonic() - saved > _SAVE_EVERY:
            trainer.save()
            saved = time.monotonic()
        if state.step % validate_every == 0:
            _log(work, name, f"{_place(state)} val {validate(trainer.averaged(), held)}")
    trainer.save()
    _log(work, name, f"{_place(trainer.state)} saved")


def _place(state: State) -> str:
    return f"step {state.step} windows {state.windows} {state.seconds:.0f} s cpu {state.cpu:.0f}"


def _log(work: Path, name: str, line: str) -> None:
    stamp = time.strftime("%H:%M:%S")
    with open(work / "train.log", "a") as file:
        file.write(f"{stamp} {name} {line}\n")
    print(stamp, name, line, flush=True)
