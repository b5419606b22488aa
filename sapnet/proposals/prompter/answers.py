"""The network's answers to clicks: for each click some windows, in each window three masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor

from sapnet.proposals.prompter.network import MASKS, Drawn
from sapnet.proposals.prompter.scene import Scene, paste
from sapnet.proposals.prompter.windows import FINE
from sapnet.types import BoolArray, FloatArray

_AT_ONCE = 8  # clicks
CLOSER, WIDE, WITH_MASK = 3, 1.5, True  # more windows, their sides over their masks' extents
_PIECE = 0.15  # of the largest piece's area: smaller pieces of a mask are dropped


@dataclass(frozen=True, slots=True)
class Answer:
    """The network's answer to one click.

    Attributes:
        frames: (W, 4) xyxy of the windows in pixels of the image.
        drawn: W rows.
    """

    frames: FloatArray
    drawn: Drawn

    def logits(self) -> FloatArray:
        """(W, MASKS, FINE, FINE), without small pieces."""
        values = self.drawn.mask_logits.numpy().copy()
        for mask in values.reshape(-1, FINE, FINE):
            drop_pieces(mask)
        return values

    def paste(self, out: BoolArray) -> None:
        """Draw the W * MASKS masks at image size.

        Args:
            out: (W * MASKS, H, W), of `scene.blank`.
        """
        for window, (logits, frame) in enumerate(zip(self.logits(), self.frames, strict=True)):
            paste(logits, frame, out[window * MASKS : (window + 1) * MASKS])

    def iou(self) -> FloatArray:
        """(W, MASKS) in [0, 1], estimated."""
        return np.asarray(self.drawn.iou.numpy(), np.float32)


@torch.inference_mode()
def answers(scene: Scene, points: FloatArray) -> Iterator[Answer]:
    """Answers to one click on each of N objects, in order.

    Args:
        points: (N, 2) xy in pixels of the image.
    """
    points = np.asarray(points, np.float32).reshape(-1, 2)
    scene.prepare(points)
    sides = np.array(scene.sides(), np.float32)
    count = len(sides)
    for start in range(0, len(points), _AT_ONCE):
        chunk = np.arange(start, min(start + _AT_ONCE, len(points)))
        owner = np.repeat(chunk, count)
        tried = np.tile(sides, len(chunk))
        rows: list[Drawn | None] = [None] * len(owner)
        frames = np.zeros((len(owner), 4), np.float32)
        for indices, look in scene.look(points[owner], tried):
            own = owner[indices]
            drawn = scene.draw(
                look,
                [points[i : i + 1] for i in own],
                [points[:0]] * len(own),
                [_near(points, i, frame) for i, frame in zip(own, look.frames, strict=True)],
            )
            frames[indices] = look.frames
            for row, index in enumerate(indices):
                rows[index] = _rows(drawn, slice(row, row + 1))
        first = []
        for k in range(len(chunk)):
            own_rows = slice(k * count, (k + 1) * count)
            drawn_rows = [r for r in rows[own_rows] if r is not None]
            first.append(Answer(frames[own_rows], _joined(drawn_rows)))
        yield from _closer(scene, points, chunk, first)


def _closer(
    scene: Scene, points: FloatArray, chunk: np.ndarray, first: list[Answer]
) -> Iterator[Answer]:
    """Answers with more windows: round the masks of the highest estimates, and with them."""
    owner, frames, masks = [], [], []
    for k, answer in zip(chunk, first, strict=True):
        for frame, mask in _round(answer, points[k]):
            owner.append(int(k))
            frames.append(frame)
            masks.append(mask)
    more: dict[int, list[tuple[FloatArray, Drawn]]] = {int(k): [] for k in chunk}
    if owner:
        squares = np.array(frames, np.float32)
        centres = np.asarray((squares[:, :2] + squares[:, 2:]) / 2, np.float32)
        sides = squares[:, 2] - squares[:, 0]
        for indices, look in scene.look(centres, sides, points[owner]):
            own = [owner[i] for i in indices]
            drawn = scene.draw(
                look,
                [points[i : i + 1] for i in own],
                [points[:0]] * len(own),
                [_near(points, i, frame) for i, frame in zip(own, look.frames, strict=True)],
                torch.stack([masks[i] for i in indices]) if WITH_MASK else None,
            )
            for row, (index, frame) in enumerate(zip(indices, look.frames, strict=True)):
                more[owner[index]].append((frame, _rows(drawn, slice(row, row + 1))))
    for k, answer in zip(chunk, first, strict=True):
        closer = more[int(k)]
        yield Answer(
            np.concatenate([answer.frames, *[frame[None] for frame, _ in closer]]),
            _joined([answer.drawn, *[drawn for _, drawn in closer]]),
        )


def _round(answer: Answer, point: FloatArray) -> list[tuple[FloatArray, Tensor]]:
    """Windows (xyxy) round the best masks of an answer, and the masks in them."""
    estimates = answer.iou().copy()
    windows: list[tuple[FloatArray, Tensor]] = []
    while len(windows) < CLOSER and estimates.max() > 0:
        window, index = np.unravel_index(int(estimates.argmax()), estimates.shape)
        estimates[window] = 0  # one of each window
        logits = answer.drawn.mask_logits[window, index].numpy().copy()
        drop_pieces(logits)
        inside = logits > 0
        if not inside.any():
            continue
        frame = answer.frames[window]
        cell = (frame[2] - frame[0]) / FINE
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        low = frame[:2] + np.array([columns[0], rows[0]]) * cell
        high = frame[:2] + np.array([columns[-1] + 1, rows[-1] + 1]) * cell
        low, high = np.minimum(low, point), np.maximum(high, point)
        centre, half = (low + high) / 2, float((high - low).max()) * WIDE / 2
        square = np.concatenate([centre - half, centre + half]).astype(np.float32)
        windows.append((square, _moved(logits, frame, square)))
    return windows


def _moved(logits: FloatArray, frame: FloatArray, other: FloatArray) -> Tensor:
    """(FINE, FINE) probabilities of a mask that was drawn in one window, in another."""
    steps = (np.arange(FINE) + 0.5) / FINE
    side = frame[2] - frame[0]
    xs = (other[0] + steps * (other[2] - other[0]) - frame[0]) / side * 2 - 1
    ys = (other[1] + steps * (other[3] - other[1]) - frame[1]) / side * 2 - 1
    grid = np.stack(np.meshgrid(xs, ys), -1)[None].astype(np.float32)
    values = torch.sigmoid(torch.from_numpy(logits))[None, None]
    moved = F.grid_sample(values, torch.from_numpy(grid), align_corners=False)
    return moved[0, 0]


def drop_pieces(logits: FloatArray) -> None:
    """Make small separate pieces of one mask (FINE, FINE) background, in place."""
    parts, count = label(logits > 0)
    if count < 2:
        return
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    small = areas < _PIECE * areas.max()
    small[0] = False
    logits[small[parts]] = -1.0


def tags(windows: int) -> list[str]:
    """The sources of W windows' masks, in the order of `Answer.logits` made flat."""
    return [f"prompter-{window}-{mask}" for window in range(windows) for mask in range(MASKS)]


def _near(points: FloatArray, own: int, frame: FloatArray) -> FloatArray:
    """The other points that lie in a window."""
    within = np.asarray((points >= frame[:2]).all(1) & (points <= frame[2:]).all(1))
    within[own] = False
    return points[within]


def _rows(drawn: Drawn, rows: slice) -> Drawn:
    return Drawn(**{f.name: getattr(drawn, f.name)[rows] for f in fields(Drawn)})


def _joined(parts: Sequence[Drawn]) -> Drawn:
    return Drawn(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Drawn)})
