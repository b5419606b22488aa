import pytest
import torch

from sapnet.proposals.prompter.network import Features, Prompter
from sapnet.proposals.prompter.windows import FINE, Prompts, boxes_of


@pytest.mark.slow
@torch.inference_mode()
def test_the_colour_guide_is_zero_where_the_click_is_and_large_elsewhere() -> None:
    """Wherever the window lies and however large it is."""
    torch.manual_seed(0)
    model = Prompter().eval()
    guides = []
    model.unet.colour.register_forward_hook(lambda module, given, out: guides.append(given[0]))
    colours = torch.zeros(1, 3, 256, 256)
    colours[:, 0, :, 128:] = 1.0  # left and right differ
    levels = [torch.zeros(1, 48, 64 >> k, 64 >> k) for k in range(3)]
    features = Features(levels, colours, torch.tensor([[256.0, 256.0]]))
    for x, side in ((60.0, 200.0), (190.0, 200.0), (120.0, 40.0), (150.0, 600.0)):
        click = torch.tensor([[x, 77.0]])
        centre = torch.tensor([[128.0, 90.0]])
        windows = model.windows(features, torch.tensor([0]), boxes_of(centre, torch.tensor([side])))
        none = [click[:0]]
        model(features, windows, Prompts([click], none, none))
        distance = guides.pop()[0, 3]
        steps = 128 + ((torch.arange(FINE) + 0.5) / FINE - 0.5) * side
        same = (steps < 126) if x < 128 else (steps > 130)
        other = (steps > 130) if x < 128 else (steps < 126)
        row = distance[FINE // 2]
        within = (steps > 2) & (steps < 254)
        assert row[same & within].max() < 0.45
        assert row[other & within].min() > 0.55
