"""A trained segmenter made ready to predict: the same function in less time."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sapnet.segmenters.base import Segmenter
from sapnet.segmenters.winograd.conv import WinogradConv2d, multiply_less


def make_ready(segmenter: Segmenter) -> Segmenter:
    """The segmenter itself, in eval and changed for good: it can neither be trained nor saved.

    Batch norms become part of the convolutions before them, memory is channels-last, and on a CPU
    wide 3×3 convolutions are computed by Winograd's algorithm. Outputs stay within 1e-4 of the
    largest. Winograd's weights take four times the memory of the ones they replace.
    """
    segmenter.eval().requires_grad_(False)
    for module in list(segmenter.modules()):
        _fold(module)
    if next(segmenter.parameters()).device.type == "cpu":
        multiply_less(segmenter, WinogradConv2d)
    return segmenter.to(memory_format=torch.channels_last)


def _fold(module: nn.Module) -> None:
    """Fold batch norms into the convolutions that are registered right before them.

    In all networks here that is the order in which they run.
    """
    children = list(module.named_children())
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
