"""SAM's mask decoder for many prompts on one image: the same sums in fewer of them.

Kirillov et al., ICCV 2023, on the weights of a `segment_anything` model. Attention between a few
tokens and thousands of image cells needs no projection of the cells: q·(W x + b) is (qW)·x and a
constant, and a weighted mean of W x + b is W times the weighted mean, plus b. The projections go to
the tokens' side, and cells stay as they are. What no prompt has changed is projected once for all:
the cells that the first layer meets, later only the places they are at. Transposed convolutions of
stride 2 are a product a cell, so everything lies cell by cell until the masks.
"""

import math

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor

_TILE = 512  # cells that a CPU changes at a time: what they become stays in its caches
_FINER = 4  # logits along the side of a cell


class PromptDecoder:
    """Decodes the prompts of one image, with what they share computed once."""

    def __init__(self, model: Sam, features: Tensor, size: tuple[int, int] | None = None) -> None:
        """Project what does not depend on the prompts.

        Args:
            model: SAM.
            features: (1, C, h, w) of the image encoder.
            size: rows and columns of the logits that are wanted; None is all of them, (4h, 4w).
        """
        self._model = model
        self._grid = features.shape[2:]
        self._tile = _TILE if features.device.type == "cpu" else self._grid.numel()
        self._size = size or (_FINER * self._grid[0], _FINER * self._grid[1])
        empty = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        self._cells = (features + empty).flatten(2).transpose(1, 2).contiguous()
        places = model.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        transformer = model.mask_decoder.transformer
        asked = [layer.cross_attn_token_to_image for layer in transformer.layers]
        asked.append(transformer.final_attn_token_to_image)
        asking = [layer.cross_attn_image_to_token for layer in transformer.layers]
        shared = [self._cells + places] + [places] * len(asking)
        self._keys = [_heads(a, a.k_proj(k)) for a, k in zip(asked, shared, strict=True)]
        self._queries = [_heads(a, a.q_proj(k)) for a, k in zip(asking, shared[:-1], strict=True)]
        self._values = _heads(asked[0], F.linear(self._cells, asked[0].v_proj.weight))
        upscaling = model.mask_decoder.output_upscaling
        self._spreads = [_as_product(upscaling[0]), _as_product(upscaling[3])]

    def __call__(
        self, points: Tensor, labels: Tensor, boxes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, m, *size) and SAM's estimates of their IoU (P, m).

        m is 3; of a box without points 4, of which the first is SAM's single answer.

        Args:
            points: (P, n, 2) float32 xy in pixels of the model's input; n may be 0 with boxes.
            labels: (P, n), 1 is inside, 0 outside.
            boxes: (P, 4) xyxy in pixels of the model's input.
        """
        decoder = self._model.mask_decoder
        given = (points, labels) if points.shape[1] else None
        sparse, _ = self._model.prompt_encoder(points=given, boxes=boxes, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], 1)
        answers, cells = self._transformed(tokens, len(own))
        first = 0 if given is None else 1  # the first is the one for no ambiguity
        heads = list(decoder.output_hypernetworks_mlps)[first:]
        weights = torch.stack([mlp(answers[:, 1 + first + i]) for i, mlp in enumerate(heads)], 1)
        quality = decoder.iou_prediction_head(answers[:, 0])[:, first:]
        return self._masks(cells, weights), quality

    def _transformed(self, tokens: Tensor, answers: int) -> tuple[Tensor, Tensor]:
        """The two-way transformer.

        Tokens (P, T, C) -> the first `answers` of them, and the cells (P, N, C).
        """
        transformer = self._model.mask_decoder.transformer
        queries, cells = tokens, self._cells.repeat(len(tokens), 1, 1)
        for index, layer in enumerate(transformer.layers):
            if layer.skip_first_layer_pe:
                queries = layer.norm1(layer.self_attn(queries, queries, queries))
            else:
                q = queries + tokens
                queries = layer.norm1(queries + layer.self_attn(q, q, queries))
            changed = cells if index else None
            attention = layer.cross_attn_token_to_image
            attended = self._attend(attention, queries + tokens, self._keys[index], changed)
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            attention = layer.cross_attn_image_to_token
            k = _heads(attention, attention.k_proj(queries + tokens))
            share = _scores(k, attention.q_proj, self._queries[index], changed).softmax(2)
            values = _token_values(attention, queries).flatten(1, 2)
            shares = share.flatten(1, 2).transpose(1, 2).split(self._tile, 1)
            for some, weights in zip(cells.split(self._tile, 1), shares, strict=True):
                some.copy_(layer.norm4(some.baddbmm_(weights, values)))
        queries, tokens = queries[:, :answers], tokens[:, :answers]
        attention = transformer.final_attn_token_to_image
        attended = self._attend(attention, queries + tokens, self._keys[-1], cells)
        return transformer.norm_final_attn(queries + attended), cells

    def _attend(
        self, attention: Attention, queries: Tensor, keys: Tensor, cells: Tensor | None
    ) -> Tensor:
        """Attention of tokens to cells: queries (P, T, C) -> (P, T, C). keys, cells: as _scores."""
        q = _heads(attention, attention.q_proj(queries))
        share = _scores(q, attention.k_proj, keys, cells).softmax(3)
        if cells is None:
            attended = share @ self._values
        else:
            mean = torch.bmm(share.flatten(1, 2), cells).view(*q.shape[:3], -1)
            to_values = attention.v_proj.weight.unflatten(0, (attention.num_heads, -1))
            attended = mean @ to_values.transpose(1, 2)
        return attention.out_proj(attended.transpose(1, 2).flatten(2) + attention.v_proj.bias)

    def _masks(self, cells: Tensor, weights: Tensor) -> Tensor:
        """Cells (P, N, C) up to four times the grid, times the masks' weights (P, M, c)."""
        _, norm, gelu, _, last = self._model.mask_decoder.output_upscaling
        h, w = (math.ceil(side / _FINER) for side in self._size)
        cells = cells.unflatten(1, self._grid)[:, :h, :w].flatten(1, 2)
        parts = []
        for some in cells.split(self._tile, 1):
            fine = F.linear(some, *self._spreads[0]).unflatten(2, (4, -1))  # quarters of a cell
            fine = gelu(F.layer_norm(fine, fine.shape[-1:], norm.weight, norm.bias, norm.eps))
            fine = last(F.linear(fine, *self._spreads[1])).unflatten(3, (4, -1)).flatten(1, 3)
            parts.append(weights @ fine.transpose(1, 2))  # (P, M, n * 4 * 4)
        # of a cell: row and column of the half, then of the quarter
        logits = torch.cat(parts, 2).unflatten(2, (h, w, 2, 2, 2, 2))
        logits = F.pixel_shuffle(logits.permute(0, 1, 4, 6, 5, 7, 2, 3).flatten(1, 5), _FINER)
        return logits[:, :, : self._size[0], : self._size[1]]


def _heads(attention: Attention, projected: Tensor) -> Tensor:
    """(P, T, heads * d) -> (P, heads, T, d)."""
    return projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _scores(
    tokens: Tensor, projection: torch.nn.Linear, shared: Tensor, cells: Tensor | None
) -> Tensor:
    """Tokens (P, heads, T, d) times the cells' projection, scaled: (P, heads, T, N).

    Args:
        shared: (1, heads, N, d), what of the projection the prompts share.
        cells: (P, N, C), still to be projected and added to it, if not None.
    """
    tokens = tokens / math.sqrt(tokens.shape[3])
    scores = tokens @ shared.transpose(2, 3)
    if cells is not None:
        asked = tokens @ projection.weight.unflatten(0, (tokens.shape[1], -1))
        scores.flatten(1, 2).baddbmm_(asked.flatten(1, 2), cells.transpose(1, 2))
    return scores


def _token_values(attention: Attention, values: Tensor) -> Tensor:
    """The value that a token adds to a cell of weight 1, by head: (P, T, C) -> (P, heads, T, C)."""
    v = _heads(attention, attention.v_proj(values))
    weight = attention.out_proj.weight.unflatten(1, (attention.num_heads, -1)).permute(1, 2, 0)
    return v @ weight + attention.out_proj.bias / attention.num_heads


def _as_product(layer: torch.nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (4 * c', c) and bias of a transposed convolution of 2×2 with stride 2, a cell each."""
    assert layer.kernel_size == layer.stride == (2, 2)
    assert layer.bias is not None
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)
