"""Masks as outlines, and the mask on the table: against plain loops over pixels."""

import itertools
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

INSIDE = """async (rles) => {
  const { shapeOf } = await import('/web/viewer/overlay.js');
  const ctx = document.createElement('canvas').getContext('2d');
  return rles.map((rle) => {
    const { path, box, area } = shapeOf(rle);
    const [height, width] = rle.size;
    const inside = [];
    for (let x = 0; x < width; x++)
      for (let y = 0; y < height; y++)
        inside.push(ctx.isPointInPath(path, x + 0.5, y + 0.5, 'evenodd') ? 1 : 0);
    return { inside, box, area };
  });
}"""

DRAFT = """async ([rle, other]) => {
  const { Draft } = await import('/web/review/draft.js');
  const told = [];
  const candidates = [{ index: 0, segmentation: other }];
  const draft = new Draft({ segmentation: rle, candidates });
  const tell = () => told.push({ rle: draft.rle, changed: draft.changed, choice: draft.choice,
                                 points: draft.points.length, area: draft.shape.area });
  tell();
  draft.beginStroke();
  draft.stroke(3, 4, 14, 9, 3, true);
  draft.stroke(14, 9, 29, 0, 3, true);
  tell();
  draft.beginStroke();
  draft.stroke(8, 6, 8, 6, 2, false);
  tell();
  draft.choose(0);
  tell();
  draft.addPoint(1, 2, true);
  draft.addPoint(3, 2, false);
  draft.suggested(rle);
  tell();
  const question = draft.question();
  const refused = draft.choose(5);
  const steps = [];
  while (draft.undo()) { steps.push(draft.rle); tell(); }
  return { told, question, refused, steps };
}"""


def rle(mask: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return found | {"counts": found["counts"].decode()}


def near(height: int, width: int, path: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Pixels whose centre is no further than `radius` from the line."""
    y, x = np.mgrid[:height, :width] + 0.5
    found = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length if length else 0 * x
        along = np.clip(along, 0, 1)
        ex, ey = x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)
        found |= ex**2 + ey**2 <= radius**2
    return found


def test_an_outline_encloses_the_pixels_of_its_mask(ui: Any) -> None:
    generator = np.random.default_rng(2)
    masks = [np.zeros((4, 6)), np.ones((4, 6)), np.ones((1, 1)), np.eye(7), 1 - np.eye(7)]
    ring = np.ones((12, 9))
    ring[3:8, 2:6] = 0
    ring[5, 4] = 1  # an island in a hole
    masks += [ring, *(generator.random((19, 23)) < share for share in (0.2, 0.5, 0.8))]
    ui.open()
    told = ui.page.evaluate(INSIDE, [rle(m) for m in masks])
    for mask, found in zip(masks, told, strict=True):
        assert found["inside"] == mask.astype(int).flatten(order="F").tolist()
        assert found["area"] == int(mask.sum())
        y, x = np.nonzero(mask)
        box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1] if len(x) else None
        assert found["box"] == box


def test_a_draft_is_painted_chosen_and_undone(ui: Any) -> None:
    mask, other = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    mask[5:15, 6:20] = True
    other[2:4, 2:9] = True
    painted = mask | near(20, 30, [(3, 4), (14, 9), (29, 0)], 3)
    erased = painted & ~near(20, 30, [(8, 6), (8, 6)], 2)
    ui.open()
    found = ui.page.evaluate(DRAFT, [rle(mask), rle(other)])
    states = [rle(m) for m in (mask, painted, erased, other, mask)]
    told = found["told"]
    assert [t["rle"] for t in told[:5]] == states
    assert [t["area"] for t in told[:5]] == [
        int(m.sum()) for m in (mask, painted, erased, other, mask)
    ]
    assert [t["changed"] for t in told[:5]] == [False, True, True, True, False]
    assert [t["choice"] for t in told[:5]] == [None, None, None, 0, None]
    assert [t["points"] for t in told[:5]] == [0, 0, 0, 0, 2]
    assert found["question"]["segmentation"] == states[3]  # as it was before the first point
    assert [p["positive"] for p in found["question"]["points"]] == [True, False]
    assert not found["refused"]
    assert found["steps"] == [states[3], states[3], states[2], states[1], states[0]]
    assert not told[-1]["changed"]
