"""The decoder that shares what prompts share, against segment-anything's own."""

import pytest
import torch
from segment_anything.modeling import Sam

from sapnet.proposals.sam.decoder import PromptDecoder


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
@torch.inference_mode()
def test_it_is_segment_anythings(model: Sam, prompts: int, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(1, 32, 8, 8, generator=generator)
    points = torch.rand(prompts, count, 2, generator=generator) * 128
    labels = torch.zeros(prompts, count, dtype=torch.int32)
    labels[:, 0] = 1
    logits, quality = PromptDecoder(model, features)(points, labels)
    part, _ = PromptDecoder(model, features, (32, 19))(points, labels)
    sparse, dense = model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    masks, ious = model.mask_decoder(
        image_embeddings=features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    assert logits.shape == (prompts, 3, 32, 32)
    torch.testing.assert_close(part, logits[..., :19], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits, masks, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(quality, ious, atol=1e-5, rtol=1e-4)
    assert masks.std() > 0.01
