"""Local affinity: a small neighbourhood, weighted by likeness, in a cascade (SAPNet++, Eqs 21-25).

    psi_ij = exp(-|g_i - g_j|^2 / zeta_l^2)  for j in the k x k window of i, summing to 1 over j.

The kernel depends on the guide (image or features) alone: computed once, applied to every mask.
The window's centre counts, as in the global step: without it a pixel unlike its neighbours has
nothing to divide by, and repeated application can swing between two halves of a chequerboard.
Neighbours outside of the guide do not count: their weight is zero, the rest is normalised.
"""

import torch
from torch import Tensor
from torch.nn import functional

CACHED = 2**18  # mask pixels averaged together on a CPU


def local_affinity(
    guide: Tensor,
    probs: Tensor,
    *,
    kernel: int = 5,
    zeta: float = 0.15,
    iterations: int = 1,
    blocks: int = 2,
    mix: float = 0.5,
) -> Tensor:
    """Cascaded local refinement of masks by one guide: `local_kernel`, then `cascade`.

    Args:
        guide: (C, H, W) float.
        probs: (N, H, W) float, on the guide's device.

    Returns:
        (N, H, W) in the range of each mask's input, without graph.
    """
    weights = local_kernel(guide, kernel=kernel, zeta=zeta)
    return cascade(weights, probs, iterations=iterations, blocks=blocks, mix=mix)


def local_kernel(guide: Tensor, *, kernel: int = 5, zeta: float = 0.15) -> Tensor:
    """Normalised weights of each pixel's window (Eqs 21-24).

    Args:
        guide: (C, H, W) float.
        kernel: odd, >= 1.
        zeta: bandwidth in the guide's unit, > 0.

    Returns:
        (kernel**2, H, W) float32. Row (dy + r) * kernel + (dx + r), r = kernel // 2, has the weight
        of pixel (y + dy, x + dx); the weights of a pixel sum to 1, those outside of the guide are
        0.

    Raises:
        ValueError: kernel or zeta is out of range.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd and at least 1, got {kernel}")
    if not zeta > 0:
        raise ValueError(f"zeta must be above 0, got {zeta}")
    guide = guide.detach().float()
    height, width = guide.shape[1:]
    radius = kernel // 2
    weights = guide.new_zeros(kernel * kernel, height, width)
    weights[kernel * kernel // 2] = 1.0
    # Half of the offsets: the other half is the same value seen from the other pixel.
    for index in range(kernel * kernel // 2):
        dy, dx = radius - index // kernel, radius - index % kernel  # back from there to here
        if dy >= height or abs(dx) >= width:
            continue
        rows, rows_back = slice(dy, height), slice(0, height - dy)
        cols, cols_back = (
            slice(max(dx, 0), width + min(dx, 0)),
            slice(max(-dx, 0), width - max(dx, 0)),
        )
        distance = (guide[:, rows, cols] - guide[:, rows_back, cols_back]).square_().sum(0)
        affinity = torch.exp(distance / -(zeta * zeta))
        weights[index, rows, cols] = affinity
        weights[kernel * kernel - 1 - index, rows_back, cols_back] = affinity
    return weights / weights.sum(0)


def cascade(
    weights: Tensor, probs: Tensor, *, iterations: int = 1, blocks: int = 2, mix: float = 0.5
) -> Tensor:
    """Blocks of repeated averaging (Eq. 25).

    A block's input is `mix` of the last output and `1 - mix` of the last input.

    Args:
        weights: from `local_kernel`.
        probs: (N, H, W).
        iterations: in each block, >= 1.
        blocks: >= 0; 0 gives the input back.
        mix: in [0, 1].

    Returns:
        The last block's output, (N, H, W).
    """
    given = probs.detach().float()
    # On a CPU a few masks at a time, as many as stay in its cache.
    part = max(1, CACHED // given[0].numel()) if len(given) and given.is_cpu else max(1, len(given))
    outs = [_cascade(weights, some, iterations, blocks, mix) for some in given.split(part)]
    return torch.cat(outs).to(probs.dtype)


def _cascade(weights: Tensor, given: Tensor, iterations: int, blocks: int, mix: float) -> Tensor:
    out = given
    for block in range(blocks):
        if block:
            given = torch.lerp(given, out, mix)
        out = given
        for _ in range(iterations):
            out = _average(weights, out)
    return out


def _average(weights: Tensor, probs: Tensor) -> Tensor:
    """One weighted mean over the window."""
    height, width = probs.shape[1:]
    kernel = int(len(weights) ** 0.5)
    # What is padded is never seen: its weight is 0.
    padded = functional.pad(probs, (kernel // 2,) * 4)
    out = torch.zeros_like(probs)
    for index, weight in enumerate(weights):
        y, x = divmod(index, kernel)
        out.addcmul_(weight, padded[:, y : y + height, x : x + width])
    return out
