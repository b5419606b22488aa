import numpy as np
import pytest
import torch

from sapnet.data.masks import encode_all
from sapnet.proposals.prompter.answers import CLOSER, answers
from sapnet.proposals.prompter.network import MASKS, Prompter
from sapnet.proposals.prompter.ranker import (
    CONTEXT,
    FIGURES,
    Candidates,
    Ranker,
    context,
    estimated_ious,
    figures,
)
from sapnet.proposals.prompter.scene import SIDES, Scene
from sapnet.proposals.prompter.weights import ready
from sapnet.proposals.prompter.windows import FINE

SIZE = (60, 80)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_context_against_plain_counts() -> None:
    """Two points: candidates beside what the other point would take."""
    own = np.stack([box(0, 0, 10, 10), box(0, 0, 20, 20)])
    other = np.stack([box(40, 40, 50, 50), box(5, 5, 15, 25)])
    estimates = [np.float32([0.3, 0.6]), np.float32([0.2, 0.8])]
    found = context([encode_all(own), encode_all(other)], estimates, 0)
    assert found.shape == (2, CONTEXT)
    pick = other[1]  # the surer one
    for row, mask in zip(found, own, strict=True):
        shared = (mask & pick).sum()
        assert row[1] == pytest.approx(0.8 * shared / mask.sum(), abs=1e-5)
        assert row[2] == pytest.approx(0.8 * shared / pick.sum(), abs=1e-5)
        assert row[3] == pytest.approx(np.log(mask.sum() / pick.sum()), abs=1e-5)
    np.testing.assert_allclose(found[:, 0], estimates[0])
    np.testing.assert_allclose(found[:, 4:], [[0, np.log(2), 0.8]] * 2, rtol=1e-5)


def test_a_lone_point_and_points_without_candidates() -> None:
    alone = context([encode_all(box(0, 0, 9, 9)[None])], [np.float32([0.7])], 0)
    np.testing.assert_allclose(alone, [[0.7, 0, 0, 0, 0, 0, 0]], rtol=1e-6)
    none = context([[], encode_all(box(0, 0, 9, 9)[None])], [np.float32([]), np.float32([0.0])], 1)
    assert not none.any()


@pytest.fixture(scope="module")
def scene() -> Scene:
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Scene(ready(Prompter()), image)


@pytest.mark.slow
def test_more_windows_lie_round_masks_and_hold_the_click(scene: Scene) -> None:
    for click in ((40.2, 30.1), (0.3, 59.8)):
        (answer,) = answers(scene, np.array([click], np.float32))
        extra = answer.frames[len(scene.sides()) :]
        assert len(extra) <= CLOSER
        assert answer.drawn.mask_logits.shape == (len(answer.frames), MASKS, FINE, FINE)
        sides = extra[:, 2:] - extra[:, :2]
        np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-3)
        assert (extra[:, :2] <= np.float32(click) + 0.01).all()
        assert (extra[:, 2:] >= np.float32(click) - 0.01).all()
    assert len(scene.sides()) <= len(SIDES)


@pytest.mark.slow
def test_figures_do_not_depend_on_the_order_of_the_candidates(scene: Scene) -> None:
    points = np.array([[40, 30], [10, 10]], np.float32)
    answer = next(answers(scene, points))
    given = np.stack([box(20, 30, 40, 50), box(0, 0, 60, 80), box(28, 38, 33, 43)])
    drawn = np.stack([box(22, 30, 40, 52), box(25, 35, 35, 45)])
    told = np.float32([0.5, 0.3, 0.4])
    scores, sources = np.float32([0.7, 0.2]), ["tree"] * 3 + ["prompter-0-0", "prompter-0-1"]

    def candidates(order: list[int]) -> Candidates:
        masks = np.concatenate([given[order], drawn])
        return Candidates.of(masks, np.append(told[order], scores), sources, given=3)

    judge = scene.model.judge
    one = figures(judge, answer, candidates([0, 1, 2]), points, 0)
    order = [2, 0, 1]
    two = figures(judge, answer, candidates(order), points, 0)
    assert one.shape == (5, FIGURES)
    assert np.isfinite(one).all()
    np.testing.assert_allclose(two, one[[*order, 3, 4]], rtol=1e-4, atol=1e-5)
    assert one[:, 19].tolist() == pytest.approx([0, np.log(2), 0, 0, 0])  # holds the other point
    with torch.inference_mode():
        estimate = Ranker().eval().alone(torch.from_numpy(one))
    assert ((estimate >= 0) & (estimate <= 1)).all()


@pytest.mark.slow
def test_what_a_window_holds_of_a_mask(scene: Scene) -> None:
    (answer,) = answers(scene, np.array([[40, 30]], np.float32))
    ends = [(14, 22, 46, 58), (0, 0, 60, 80)]  # top, left, bottom, right
    masks = np.stack([box(*e) for e in ends])
    _, held = estimated_ious(scene.model.judge, answer, masks, masks.sum((1, 2)))
    for (x0, y0, x1, y1), shares in zip(answer.frames, held, strict=True):
        for (top, left, bottom, right), share in zip(ends, shares, strict=True):
            wide = max(min(right, x1) - max(left, x0), 0)
            high = max(min(bottom, y1) - max(top, y0), 0)
            whole = (right - left) * (bottom - top)
            assert share == pytest.approx(wide * high / whole, abs=0.12)
