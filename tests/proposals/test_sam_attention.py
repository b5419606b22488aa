"""SAM's attention in one call, against the package's own."""

import copy

import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT

from sapnet.proposals.sam.attention import FusedAttention, fuse_attention
from sapnet.proposals.sam.generator import SamGenerator


def drawn(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere: the package begins with relative positions of zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (3, 7)])
def test_it_is_the_packages_attention(positions: bool, size: tuple[int, int]) -> None:
    plain = Attention(24, num_heads=3, use_rel_pos=positions, input_size=size).eval()
    drawn(plain)
    fused = copy.deepcopy(plain)
    fused.__class__ = FusedAttention
    x = torch.randn(2, *size, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), plain(x), rtol=1e-5, atol=1e-5)
        halves = copy.deepcopy(fused).to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    assert (halves - plain(x)).abs().max() < 0.05 * plain(x).abs().max()


def test_a_whole_encoder_with_windows_that_do_not_divide_it() -> None:
    sizes = {"img_size": 112, "embed_dim": 16, "depth": 2, "num_heads": 2, "out_chans": 8}
    encoder = ImageEncoderViT(use_rel_pos=True, window_size=4, global_attn_indexes=(1,), **sizes)
    drawn(encoder.eval())
    fused = copy.deepcopy(encoder)
    fuse_attention(fused)
    assert fused.state_dict().keys() == encoder.state_dict().keys()
    x = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), encoder(x), rtol=1e-4, atol=1e-4)


def test_a_generator_attends_so(model: Sam) -> None:
    blocks = SamGenerator(model=copy.deepcopy(model)).network.model.image_encoder.blocks
    assert {type(block.attn) for block in blocks} == {FusedAttention}
