import pytest
import torch

from sapnet.proposals.prompter.network import MASKS, Features, Prompter
from sapnet.proposals.prompter.weights import ready
from sapnet.proposals.prompter.windows import FINE, GRID, Prompts, boxes_of


def made(seed: int = 0) -> Prompter:
    torch.manual_seed(seed)
    return Prompter().eval()


def scene(model: Prompter, count: int = 2) -> Features:
    colours = torch.randn(count, 3, 96, 128, generator=torch.Generator().manual_seed(2))
    return model.features(colours, torch.tensor([[96.0, 128.0]]).expand(count, 2))


def prompts(clicks: torch.Tensor, mask: torch.Tensor | None = None) -> Prompts:
    none = [clicks[:0]] * len(clicks)
    return Prompts([c[None] for c in clicks], none, none, mask)


@pytest.mark.slow
@torch.inference_mode()
def test_windows_do_not_depend_on_each_other_nor_on_their_order() -> None:
    model = made()
    features = scene(model)
    clicks = torch.tensor([[30.0, 40.0], [90.0, 20.0], [60.0, 70.0]])
    boxes = boxes_of(clicks, torch.tensor([50.0, 300.0, 140.0]))
    images = torch.tensor([0, 1, 1])
    every = model(features, model.windows(features, images, boxes), prompts(clicks))
    assert every.mask_logits.shape == (3, MASKS, FINE, FINE)
    assert ((every.iou >= 0) & (every.iou <= 1)).all()
    for order in ([2], [1, 0], [0]):
        part = model.windows(features, images[order], boxes[order])
        some = model(features, part, prompts(clicks[order]))
        torch.testing.assert_close(some.mask_logits, every.mask_logits[order], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(some.iou, every.iou[order], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@torch.inference_mode()
def test_every_prompt_counts() -> None:
    model = made()
    features = scene(model, 1)
    click = torch.tensor([[50.0, 50.0]])
    windows = model.windows(features, torch.tensor([0]), boxes_of(click, torch.tensor([80.0])))
    none, more = [click[:0]], [torch.tensor([[60.0, 40.0]])]
    mask = torch.zeros(1, FINE, FINE)
    variants = [
        Prompts([click], none, none),
        Prompts([torch.cat([click, more[0]])], none, none),
        Prompts([click], more, none),
        Prompts([click], none, more),
        Prompts([click], none, none, mask),
        Prompts([click], none, none, mask + 1),
    ]
    logits = [model(features, windows, p).mask_logits for p in variants]
    for i, one in enumerate(logits):
        for two in logits[:i]:
            assert (one - two).abs().max() > 1e-5


@pytest.mark.slow
@torch.inference_mode()
def test_a_mask_is_judged_alike_whatever_stands_beside_it() -> None:
    model = made()
    features = scene(model, 1)
    click = torch.tensor([[50.0, 50.0]])
    windows = model.windows(features, torch.tensor([0]), boxes_of(click, torch.tensor([80.0])))
    drawn = model(features, windows, prompts(click))
    torch.testing.assert_close(model.judge(drawn, drawn.own), drawn.iou)
    masks = torch.rand(1, 5, GRID, GRID)
    masks[0, 3] = 0
    every = model.judge(drawn, masks)
    order = torch.tensor([4, 3, 0])
    torch.testing.assert_close(model.judge(drawn, masks[:, order]), every[:, order])
    assert every.isfinite().all()


@pytest.mark.slow
@torch.inference_mode()
def test_folded_batch_norms_change_nothing() -> None:
    model = made()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    clicks = torch.tensor([[30.0, 40.0]])
    boxes = boxes_of(clicks, torch.tensor([90.0]))

    def logits() -> torch.Tensor:
        features = scene(model, 1)
        windows = model.windows(features, torch.tensor([0]), boxes)
        return model(features, windows, prompts(clicks)).mask_logits

    before = logits()
    ready(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(logits(), before, rtol=1e-3, atol=1e-3)
