import numpy as np
import pytest
import torch

from sapnet.proposals.prompter.answers import answers, drop_pieces
from sapnet.proposals.prompter.network import MASKS, Prompter
from sapnet.proposals.prompter.scene import SIDES, Scene, blank
from sapnet.proposals.prompter.weights import ready
from sapnet.proposals.prompter.windows import FINE


@pytest.fixture(scope="module")
def model() -> Prompter:
    """The architecture with seeded random weights."""
    torch.manual_seed(0)
    return ready(Prompter())


def noise(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (height // 9 + 1, width // 9 + 1, 3))
    return np.kron(coarse, np.ones((9, 9, 1)))[:height, :width].astype(np.uint8)


PLACES = np.array([[30.2, 40.1], [33.0, 42.0], [250.5, 180.7], [399.9, 1.0]], np.float32)


@pytest.mark.slow
def test_answers_do_not_depend_on_the_order_of_the_clicks(model: Prompter) -> None:
    image = noise(300, 400)
    order = [2, 0, 3, 1]
    one = list(answers(Scene(model, image), PLACES))
    two = list(answers(Scene(model, image), PLACES[order]))
    for i, answer in zip(order, two, strict=True):
        np.testing.assert_array_equal(answer.frames, one[i].frames)
        np.testing.assert_allclose(answer.logits(), one[i].logits(), atol=2e-3)
        np.testing.assert_allclose(answer.iou(), one[i].iou(), atol=1e-3)


@pytest.mark.slow
def test_windows_lie_round_their_clicks_at_image_scale(model: Prompter) -> None:
    scene = Scene(model, noise(300, 400))
    for answer, (x, y) in zip(answers(scene, PLACES), PLACES, strict=True):
        assert answer.drawn.mask_logits.shape == (len(SIDES), MASKS, FINE, FINE)
        sides = answer.frames[:, 2] - answer.frames[:, 0]
        np.testing.assert_allclose(sides, np.array(SIDES) * 400 / 512, rtol=1e-4)
        np.testing.assert_allclose(answer.frames[:, 3] - answer.frames[:, 1], sides, rtol=1e-4)
        np.testing.assert_allclose(answer.frames[:, [0, 2]].mean(1), x, atol=1e-2)
        np.testing.assert_allclose(answer.frames[:, [1, 3]].mean(1), y, atol=1e-2)


def colour_seen(scene: Scene, place: tuple[float, float], side: float) -> np.ndarray:
    """(3,) 0 to 255, in the middle of one window."""
    centre = np.array([place], np.float32)
    ((_, look),) = scene.look(centre, np.array([side], np.float32))
    middle = look.windows.colours[
        0, :, FINE // 2 - 1 : FINE // 2 + 1, FINE // 2 - 1 : FINE // 2 + 1
    ]
    return middle.mean((1, 2)).numpy() * 128 + 127


@pytest.mark.slow
@pytest.mark.parametrize("size", [(300, 400), (64, 640), (31, 17), (1100, 900)])
def test_a_window_sees_what_lies_under_it(model: Prompter, size: tuple[int, int]) -> None:
    """At both scales, in the middle and at the borders: one coloured square is found again."""
    height, width = size
    edge = max(3, min(size) // 6)
    for x, y in (
        (width // 2, height // 2),
        (0, 0),
        (width - edge, height - edge),
        (0, height - edge),
    ):
        image = np.full((height, width, 3), 40, np.uint8)
        image[y : y + edge, x : x + edge] = (220, 30, 120)
        scene = Scene(model, image)
        for side in (scene.sides()[0], scene.sides()[-1]):
            cell = side / FINE
            if cell > edge / 3:
                continue
            seen = colour_seen(scene, (x + edge / 2, y + edge / 2), side)
            np.testing.assert_allclose(seen, (220, 30, 120), atol=12)


@pytest.mark.slow
def test_many_clicks_are_seen_as_few(model: Prompter) -> None:
    """Where many parts are needed, the whole image is seen at the finer scale instead."""
    image = noise(300, 400)
    rng = np.random.default_rng(0)
    crowd = np.concatenate([PLACES[:1], rng.uniform((0, 0), (400, 300), (40, 2))]).astype(
        np.float32
    )
    alone, among = Scene(model, image), Scene(model, image)
    alone.prepare(crowd[:1])
    among.prepare(crowd)
    side = alone.sides()[0]
    (_, one), (_, two) = (scene.look(crowd[:1], np.float32([side]))[0] for scene in (alone, among))
    colours = one.windows.colours, two.windows.colours
    torch.testing.assert_close(*colours, atol=0.15, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3)])
def test_tiny_images(model: Prompter, size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    (answer,) = answers(Scene(model, image), np.array([[0.5, 0.5]], np.float32))
    masks = blank(len(answer.frames) * MASKS, size)
    answer.paste(masks)
    assert np.isfinite(answer.iou()).all()


@pytest.mark.slow
def test_no_click_no_answer(model: Prompter) -> None:
    assert list(answers(Scene(model, noise(40, 40)), np.zeros((0, 2), np.float32))) == []


def test_small_pieces_are_dropped() -> None:
    logits = np.full((FINE, FINE), -3.0, np.float32)
    logits[10:30, 10:30] = 2
    logits[40:50, 40:50] = 2  # a quarter
    logits[60:62, 60:62] = 2  # a hundredth
    drop_pieces(logits)
    assert (logits > 0).sum() == 500
    assert not (logits[55:, 55:] > 0).any()
