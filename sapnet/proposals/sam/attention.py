"""SAM's image encoder with its attention in one call of torch, which picks the fastest kernel."""

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT, get_rel_pos
from torch import Tensor


class FusedAttention(Attention):
    """The package's attention, of the same weights; it agrees up to rounding.

    The scores of all pairs of patches, 4096 × 4096 a head in a global block, are not kept beside
    their softmax.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, _ = x.shape
        parts = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H * W, d) each
        bias = self._bias(q, height, width) if self.use_rel_pos else None
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return out

    def _bias(self, q: Tensor, height: int, width: int) -> Tensor:
        """The relative positions' part of the scores, (B, heads, H * W, H * W)."""
        grid = q.unflatten(2, (height, width))
        rows = get_rel_pos(height, height, self.rel_pos_h)
        columns = get_rel_pos(width, width, self.rel_pos_w)
        by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rows)
        by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, columns)
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)


def fuse_attention(encoder: ImageEncoderViT) -> None:
    """Have an encoder attend by `FusedAttention`; its weights and their names stay."""
    for block in encoder.blocks:
        block.attn.__class__ = FusedAttention
