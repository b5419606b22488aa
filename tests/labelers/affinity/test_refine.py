"""Both levels together, windows, balance, and the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sapnet.labelers.affinity import refine as affinity
from sapnet.labelers.affinity.crop import box_windows, mask_boxes
from sapnet.labelers.affinity.loss import affinity_loss
from sapnet.labelers.affinity.refine import RefineConfig, RefinedMasks, affinity_guides, finalize

PAPER = RefineConfig(levels="pixel", window=None, balance=0.0)


def refine(probs, image, features=(), *, boxes=None, config=None):
    guides = affinity_guides(image, features, tuple(probs.shape[1:]), config or RefineConfig())
    return affinity.refine(probs, guides, boxes=boxes, config=config)


def refine_repeatedly(probs, image, features=(), *, config=None):
    guides = affinity_guides(image, features, tuple(probs.shape[1:]), config or RefineConfig())
    return affinity.refine_repeatedly(probs, guides, config=config)


def scene(n=3, size=(12, 16), seed=0):
    g = torch.Generator().manual_seed(seed)
    probs = torch.rand(n, *size, generator=g)
    image = torch.rand(3, *size, generator=g)
    features = [torch.randn(8, *(max(1, s // 2**i) for s in size), generator=g) for i in range(5)]
    return probs, image, features


def two_tone(size=(24, 32)):
    """A bright rectangle on dark ground with a little noise, and its true mask."""
    g = torch.Generator().manual_seed(3)
    truth = torch.zeros(size, dtype=torch.bool)
    truth[6:18, 8:24] = True
    image = truth.float().expand(3, *size) * 2 + 0.05 * torch.randn(3, *size, generator=g)
    return image, truth


@pytest.mark.slow
def test_the_papers_form_is_global_then_local(all_pairs, local_loop):
    probs, image, _ = scene()
    config = replace(PAPER, zeta_global=0.4, zeta_local=0.3, blocks=1, iterations=1)
    got = refine(probs, image, config=config)
    expected = local_loop(image.numpy(), all_pairs(image.numpy(), probs.numpy(), 0.16), 5, 0.3)
    np.testing.assert_allclose(got.pixel.numpy(), expected, atol=1e-5)
    assert got.semantic is None


@pytest.mark.slow
def test_the_window_is_the_region_that_is_averaged(all_pairs):
    probs, image, _ = scene()
    boxes = torch.tensor([[2.0, 2, 7, 7], [0, 0, 16, 12], [10, 6, 16, 12]])
    config = replace(PAPER, window=0.1, zeta_global=0.4, use_local=False)
    got = refine(probs, image, boxes=boxes, config=config).pixel.numpy()
    windows = box_windows(boxes, (12, 16), 0.1).numpy()
    above = all_pairs(image.numpy(), probs.numpy() * windows, 0.16)
    below = all_pairs(image.numpy(), windows.astype(np.float32), 0.16)
    np.testing.assert_allclose(got, above / below * windows, atol=1e-5)


def test_balance_divides_the_odds_by_the_priors():
    probs, image, _ = scene(n=2)
    probs[1] *= 0.2
    plain = refine(probs, image, config=PAPER).pixel
    config = replace(PAPER, use_global=False, use_local=False, balance=1.0)
    got = refine(probs, image, config=config).pixel
    prior = probs.mean((1, 2), keepdim=True)
    odds = probs / (1 - probs) * (1 - prior) / prior
    torch.testing.assert_close(got, odds / (1 + odds), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, got)


@pytest.mark.parametrize("flaw", ["eroded", "dilated", "hole"])
def test_a_flawed_mask_becomes_the_object(flaw):
    image, truth = two_tone()
    flawed = truth.clone()
    if flaw == "eroded":
        flawed[:] = False
        flawed[7:17, 9:23] = True
    elif flaw == "dilated":
        flawed[5:19, 7:25] = True
    else:
        flawed[10:14, 12:18] = False
    config = RefineConfig(levels="pixel", zeta_scale=4.0)
    out = finalize(refine(flawed[None].float(), image, config=config))[0] > 0.5
    iou = (out & truth).sum() / (out | truth).sum()
    assert iou > 0.97


def test_both_levels_stay_in_range_and_carry_no_graph():
    probs, image, features = scene()
    probs.requires_grad_()
    features = [f.requires_grad_() for f in features]
    out = refine(probs, image, features)
    for term in out.terms:
        assert term.shape == probs.shape
        assert not term.requires_grad
        assert float(term.min()) >= 0
        assert float(term.max()) <= 1
    assert len(out.terms) == 2
    torch.testing.assert_close(finalize(out), (out.pixel + out.semantic) / 2)


def test_semantic_is_the_mean_over_levels():
    probs, image, features = scene()
    config = RefineConfig(levels="semantic")
    one_by_one = [
        refine(probs, image, features, config=replace(config, feature_levels=(i,))).semantic
        for i in (0, 2)
    ]
    both = refine(probs, image, features, config=replace(config, feature_levels=(0, 2))).semantic
    torch.testing.assert_close(both, torch.stack(one_by_one).mean(0))


def test_masks_do_not_touch_each_other_and_flips_go_through():
    probs, image, features = scene(n=5)
    out = finalize(refine(probs, image, features))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(finalize(refine(probs[order], image, features)), out[order])
    torch.testing.assert_close(finalize(refine(probs[2:3], image, features)), out[2:3])
    flipped = refine(probs.flip(2), image.flip(2), [f.flip(2) for f in features])
    torch.testing.assert_close(finalize(flipped).flip(2), out, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (12, 16)])
@pytest.mark.parametrize("n", [0, 1])
def test_no_mask_and_one_pixel_work(size, n):
    probs, image, features = scene(n=n, size=size)
    out = refine(probs, image, features)
    assert finalize(out).shape == (n, *size)
    assert torch.isfinite(finalize(out)).all()


def test_empty_and_full_masks_stay():
    _, image, _ = scene()
    probs = torch.stack([torch.zeros(12, 16), torch.ones(12, 16)])
    out = refine(probs, image, config=RefineConfig(levels="pixel")).pixel
    torch.testing.assert_close(out, probs, atol=1e-5, rtol=0)


def test_terms_without_features_are_refused():
    probs, image, _ = scene()
    with pytest.raises(ValueError, match="needs features"):
        refine(probs, image)


def test_mask_boxes_are_tight():
    probs = torch.zeros(3, 8, 9)
    probs[0, 2:5, 3:9] = 0.9
    probs[1, 7, 0] = 0.2  # nothing above a half: the highest pixels
    boxes = mask_boxes(probs)
    assert boxes[:2].tolist() == [[3, 2, 9, 5], [0, 7, 1, 8]]
    assert boxes[2].tolist() == [0, 0, 9, 8]


def test_windows_equal_the_loop():
    boxes = torch.tensor([[3.0, 2, 5, 6], [0, 0, 40, 4], [18.7, 9, 20, 10]])
    got = box_windows(boxes, (10, 20), 0.1)
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        dx, dy = max(2, 0.1 * (x1 - x0)), max(2, 0.1 * (y1 - y0))
        for y in range(10):
            for x in range(20):
                inside = x0 - dx <= x + 0.5 <= x1 + dx and y0 - dy <= y + 0.5 <= y1 + dy
                assert bool(got[i, y, x]) == inside


@pytest.mark.slow
def test_loss_equals_the_loop_and_its_gradient_is_right():
    probs, _, _ = scene(n=3)
    pixel, _, _ = scene(n=3, seed=1)
    semantic, _, _ = scene(n=3, seed=2)
    boxes = torch.tensor([[2.0, 2, 7, 7], [0, 0, 16, 12], [10, 6, 16, 12]])
    areas = torch.tensor([20.0, 100.0, 30.0])
    windows = box_windows(boxes, (12, 16), 0.1)
    expected = 0.0
    for n, y, x in windows.nonzero().tolist():
        for target in (pixel, semantic):
            expected += abs(float(target[n, y, x]) - float(probs[n, y, x]))
    refined = RefinedMasks(pixel.requires_grad_(), semantic)
    loss = affinity_loss(probs, refined, boxes, areas)
    assert loss.item() == pytest.approx(expected / 150, rel=1e-5)

    doubles = RefinedMasks(pixel.detach().double(), semantic.double())
    x = probs.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: affinity_loss(p, doubles, boxes, areas), x)
    refined = RefinedMasks(pixel, None)  # one term: two could pull against each other
    affinity_loss(probs.requires_grad_(), refined, boxes, areas).backward()
    assert pixel.grad is None
    assert (probs.grad[~windows] == 0).all()
    assert (probs.grad[windows] != 0).all()


def test_loss_of_no_mask_is_a_zero_with_a_graph():
    logits = torch.zeros(0, 12, 16, requires_grad=True)
    empty = RefinedMasks(torch.zeros(0, 12, 16), None)
    loss = affinity_loss(logits.sigmoid(), empty, torch.zeros(0, 4), torch.zeros(0))
    assert loss.item() == 0.0
    loss.backward()
    assert logits.grad is not None


@pytest.mark.slow
def test_polish_is_the_image_once_more():
    probs, image, features = scene()
    once = finalize(refine(probs, image, features))
    pixel = RefineConfig(levels="pixel")
    twice = finalize(refine(once, image, config=pixel))
    torch.testing.assert_close(refine_repeatedly(probs, image, features), twice)
    plain = RefineConfig(polish=0)
    torch.testing.assert_close(refine_repeatedly(probs, image, features, config=plain), once)
    semantic = RefineConfig(levels="semantic")
    expected = finalize(refine(probs, image, features, config=semantic))
    torch.testing.assert_close(refine_repeatedly(probs, image, features, config=semantic), expected)
    assert refine_repeatedly(probs[:0], image, features).shape == (0, 12, 16)
