"""SAM's mask decoder for many prompts on one image: the same sums in fewer of them.

Kirillov et al., ICCV 2023, on the weights of a `segment_anything` model. Attention between a few
tokens and thousands of image cells needs no projection of the cells: q·(W x + b) is (qW)·x and a
constant that the softmax over cells forgets, and a weighted mean of W x + b is W times the weighted
mean, plus b. The projections go to the tokens' side, and cells stay as they are. Transposed
convolutions of stride 2 are a product a cell, so everything lies cell by cell until the masks.
"""

import math

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor

_TILE = 512  # cells that a CPU enlarges at a time: what they become stays in its caches


class PromptDecoder:
    """What the prompts of one image share."""

    def __init__(self, model: Sam, features: Tensor) -> None:
        """features: (1, C, h, w) of the image encoder."""
        self._model = model
        empty = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        self._grid = features.shape[2:]
        self._cells = (features + empty).flatten(2).transpose(1, 2).contiguous()
        position = model.prompt_encoder.get_dense_pe()
        self._position = position.flatten(2).transpose(1, 2).contiguous()

    def __call__(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, 3, 4h, 4w) and SAM's estimates of their IoU (P, 3).

        points: (P, n, 2) float32 xy in pixels of the model's input. labels: (P, n), 1 is inside, 0
        outside.
        """
        decoder = self._model.mask_decoder
        sparse, _ = self._model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], 1)
        answers, cells = self._transformed(tokens)
        last = decoder.num_mask_tokens
        heads = list(decoder.output_hypernetworks_mlps)[1:]  # the first is the one for no ambiguity
        weights = torch.stack([mlp(answers[:, 2 + i]) for i, mlp in enumerate(heads)], 1)
        quality = decoder.iou_prediction_head(answers[:, 0])[:, 1:last]
        return self._masks(cells, weights), quality

    def _transformed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (P, T, C) -> tokens and cells (P, N, C) after the two-way transformer."""
        transformer = self._model.mask_decoder.transformer
        queries, cells = tokens, self._cells
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = layer.norm1(layer.self_attn(queries, queries, queries))
            else:
                q = queries + tokens
                queries = layer.norm1(queries + layer.self_attn(q, q, queries))
            placed = cells + self._position
            seen = _tokens_see_cells(
                layer.cross_attn_token_to_image, queries + tokens, placed, cells
            )
            queries = layer.norm2(queries + seen)
            queries = layer.norm3(queries + layer.mlp(queries))
            attention = layer.cross_attn_image_to_token
            cells = _cells_see_tokens(attention, placed, cells, queries + tokens, queries)
            cells = layer.norm4(cells)
        placed = cells + self._position
        attention = transformer.final_attn_token_to_image
        seen = _tokens_see_cells(attention, queries + tokens, placed, cells)
        return transformer.norm_final_attn(queries + seen), cells

    def _masks(self, cells: Tensor, weights: Tensor) -> Tensor:
        """Cells (P, N, C) up to four times the grid, times the masks' weights (P, M, c)."""
        first, norm, gelu, second, last = self._model.mask_decoder.output_upscaling
        parts = []
        for some in cells.split(_TILE if cells.device.type == "cpu" else cells.shape[1], 1):
            fine = _spread(first, some)  # (P, n, 4, c1): the four quarters of a cell
            fine = gelu(F.layer_norm(fine, fine.shape[-1:], norm.weight, norm.bias, norm.eps))
            fine = last(_spread(second, fine)).flatten(1, -2)  # (P, n * 4 * 4, c)
            parts.append(weights @ fine.transpose(1, 2))
        logits = torch.cat(parts, 2)
        h, w = self._grid
        halves = logits.unflatten(2, (h, w, 2, 2, 2, 2))  # row, column of the half, of the quarter
        return halves.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5).flatten(2, 4)


def _tokens_see_cells(
    attention: Attention, queries: Tensor, placed: Tensor, cells: Tensor
) -> Tensor:
    """queries (P, T, C); placed, cells (P or 1, N, C) -> (P, T, C)."""
    heads = attention.num_heads
    q = attention.q_proj(queries).unflatten(2, (heads, -1))
    to_keys = attention.k_proj.weight.unflatten(0, (heads, -1))
    asked = torch.einsum("pthd,hdc->phtc", q, to_keys) / math.sqrt(q.shape[3])
    shape = asked.shape
    asked = asked.flatten(1, 2)
    if len(cells) == 1:  # all prompts ask the same cells
        share = (asked.flatten(0, 1) @ placed[0].T).softmax(1)
        mean = (share @ cells[0]).view(shape)
    else:
        share = torch.bmm(asked, placed.transpose(1, 2)).softmax(2)
        mean = torch.bmm(share, cells).view(shape)
    to_values = attention.v_proj.weight.unflatten(0, (heads, -1))
    seen = torch.einsum("phtc,hdc->pthd", mean, to_values).flatten(2) + attention.v_proj.bias
    return attention.out_proj(seen)


def _cells_see_tokens(
    attention: Attention, placed: Tensor, cells: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """placed, cells (P or 1, N, C); keys, values (P, T, C) -> what cells become, (P, N, C)."""
    heads, (prompts, count) = attention.num_heads, keys.shape[:2]
    k = attention.k_proj(keys).unflatten(2, (heads, -1)) / math.sqrt(
        attention.internal_dim // heads
    )
    to_queries = attention.q_proj.weight.unflatten(0, (heads, -1))
    asked = torch.einsum("pthd,hdc->pcht", k, to_queries).flatten(2)
    ground = torch.einsum("pthd,hd->pht", k, attention.q_proj.bias.unflatten(0, (heads, -1)))
    scores = torch.baddbmm(ground.flatten(1)[:, None], placed.expand(prompts, -1, -1), asked)
    share = scores.unflatten(2, (heads, count)).softmax(3).flatten(2)
    v = attention.v_proj(values).unflatten(2, (heads, -1))
    out = attention.out_proj.weight.unflatten(1, (heads, -1))
    said = torch.einsum("pthd,chd->phtc", v, out) + attention.out_proj.bias / heads
    return torch.baddbmm(cells.expand(prompts, -1, -1), share, said.flatten(1, 2))


def _spread(layer: torch.nn.ConvTranspose2d, cells: Tensor) -> Tensor:
    """A transposed convolution of 2×2 with stride 2, cell by cell: (..., c) -> (..., 4, c')."""
    assert layer.kernel_size == layer.stride == (2, 2)
    assert layer.bias is not None
    matrix = layer.weight.permute(0, 2, 3, 1).flatten(1)
    return (cells @ matrix).unflatten(-1, (4, -1)) + layer.bias
