"""One object's mask from any number of clicks, and from a mask that is there already."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sapnet.proposals.interactive.clicks import Click, clicked_pixels
from sapnet.proposals.prompter.answers import answers, drop_pieces
from sapnet.proposals.prompter.scene import Scene, cell_shares
from sapnet.proposals.prompter.windows import FINE
from sapnet.types import BoolArray, FloatArray

_WIDTHS = (1.3, 1.9, 3.0)  # windows over the extent of the mask and the clicks
_LEAST = 24.0  # pixels: the smallest window
_SURE = 0.96  # of the pixels of a mask that is there already


@torch.inference_mode()
def refine(scene: Scene, clicks: Sequence[Click], mask: BoolArray | None = None) -> BoolArray:
    """The mask that the clicks mean. Every click's own pixel is as it says.

    Args:
        scene: of the image; kept between clicks, it makes further ones cheap.
        clicks: at least one; the order does not matter.
        mask: (H, W) bool, the present one, or None.

    Raises:
        ValueError: neither a mask nor a positive click is there, a click lies outside the image,
            or a pixel is clicked both ways.
    """
    pixels = clicked_pixels(clicks, scene.size)
    positive = _places(clicks, True)
    negative = _places(clicks, False)
    if mask is None or not mask.any():
        if not len(positive):
            raise ValueError("there is neither a mask nor a positive click to start from")
        if len(clicks) == 1:
            return _honoured(_first(scene, positive), pixels)
        mask = np.zeros(scene.size, bool)
        has_mask = False
    else:
        has_mask = True
    return _honoured(_again(scene, positive, negative, mask, has_mask), pixels)


def _places(clicks: Sequence[Click], positive: bool) -> FloatArray:
    places = [(c.x, c.y) for c in clicks if c.positive == positive]
    return np.array(places, np.float32).reshape(-1, 2)


def _first(scene: Scene, point: FloatArray) -> BoolArray:
    answer = next(answers(scene, point))
    window, index = np.unravel_index(int(answer.iou().argmax()), answer.iou().shape)
    return scene.pasted(answer.logits()[window, index], answer.frames[window])


def _again(
    scene: Scene, positive: FloatArray, negative: FloatArray, mask: BoolArray, has_mask: bool
) -> BoolArray:
    """The mask of the highest estimate in windows round the present mask and the clicks."""
    places = np.concatenate([positive, negative])
    if has_mask:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        ends = [(columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)]
        places = np.concatenate([places, np.array(ends, np.float32)])
    low, high = places.min(0), places.max(0)
    centre, extent = (low + high) / 2, max(float((high - low).max()), _LEAST / _WIDTHS[0])
    sides = np.array([extent * w for w in _WIDTHS], np.float32)
    if not len(positive):  # the network wants one: the middle of the mask
        positive = _middle(mask)[None]
    best: tuple[float, FloatArray, FloatArray] | None = None
    centres = np.repeat(centre[None], len(sides), 0).astype(np.float32)
    for indices, look in scene.look(centres, sides):
        count = len(indices)
        present = np.concatenate([cell_shares(mask[None], f, FINE) for f in look.frames])
        soft = torch.from_numpy((1 - _SURE) / 2 + _SURE * present)
        drawn = scene.draw(
            look,
            [positive] * count,
            [negative] * count,
            [positive[:0]] * count,
            soft if has_mask else None,
        )
        row, index = np.unravel_index(int(drawn.iou.argmax()), drawn.iou.shape)
        estimate = float(drawn.iou[row, index])
        if best is None or estimate > best[0]:
            best = estimate, drawn.mask_logits[row, index].numpy().copy(), look.frames[row]
    assert best is not None
    drop_pieces(best[1])
    return scene.pasted(best[1], best[2])


def _middle(mask: BoolArray) -> FloatArray:
    rows, columns = np.nonzero(mask)
    index = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return np.array([columns[index] + 0.5, rows[index] + 0.5], np.float32)


def _honoured(mask: BoolArray, pixels: Mapping[tuple[int, int], bool]) -> BoolArray:
    out = mask.copy()
    for pixel, wanted in pixels.items():
        out[pixel] = wanted
    return out
