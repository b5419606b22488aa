"""The prompter: image features and clicks in, a few masks with an estimate of their IoU out.

One pass of the body and a small feature pyramid serve all clicks of an image. For each click and
window size a U-Net on a 32×32 window of the pyramid draws three masks at 64×64; one head estimates
the IoU of any mask, the drawn ones and given ones alike, with the object that is meant.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapnet.proposals.prompter.body import Lite0
from sapnet.proposals.prompter.windows import (
    FINE,
    GRID,
    Prompts,
    bumps,
    inside,
    log_side,
    read_points,
    sample,
    sample_pyramid,
)

MASKS = 3  # a window
_PYRAMID = 48  # channels of the pyramid
_HEADS, _KEY = 8, 4  # similarities to the click's features, and channels of each
_WIDTHS = (48, 80, 128, 160)  # of the U-Net at 32, 16, 8 and 4 cells
_FINE_WIDTH = 24
_GUIDE_WIDTH = 12
_MAPS = 8  # prompt maps beside the similarities


@dataclass(frozen=True, slots=True)
class Features:
    """The features of B working images of one padded size.

    Attributes:
        levels: (B, 48, h, w) float32 at strides 4, 8 and 16.
        colours: (B, 3, H, W) float32, normalised.
        sizes: (B, 2) float32, height and width without padding.
    """

    levels: list[Tensor]
    colours: Tensor
    sizes: Tensor


@dataclass(frozen=True, slots=True)
class Drawn:
    """The network's output in N windows.

    Attributes:
        mask_logits: (N, MASKS, FINE, FINE).
        iou: (N, MASKS) in [0, 1], estimated.
        own: (N, MASKS, GRID, GRID) probabilities; this and the rest are for `IouHead`.
        cells: (N, C, GRID, GRID) features.
        whole: (N, D) features of the window.
        clicked: (N, GRID, GRID) bumps at the positive clicks.
        log_side: (N,) of the windows.
    """

    mask_logits: Tensor
    iou: Tensor
    own: Tensor
    cells: Tensor
    whole: Tensor
    clicked: Tensor
    log_side: Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """N windows of images, read out once; more clicks in the same windows use them again.

    Attributes:
        boxes: (N, 4) xyxy.
        images: (N,) int64 index in the batch.
        cells: (N, 48, GRID, GRID) features of the pyramid.
        colours: (N, 3, FINE, FINE).
        valid: (N, GRID, GRID), 1 where a cell's centre is in its image.
        log_side: (N,).
    """

    boxes: Tensor
    images: Tensor
    cells: Tensor
    colours: Tensor
    valid: Tensor
    log_side: Tensor


class Prompter(nn.Module):
    """Body, pyramid, U-Net and IoU head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Lite0()
        self.pyramid = _Pyramid(self.body.channels[: _Pyramid.levels + 1])
        self.unet = _UNet()
        self.judge = IouHead()  # the key in shipped weights

    def features(self, colours: Tensor, sizes: Tensor, frozen: int = 0) -> Features:
        """The pyramid of a batch of images.

        Args:
            colours: (B, 3, H, W) float, (value - 127) / 128, 0 outside of the images; H and W
                multiples of 32.
            sizes: (B, 2) float, height and width without the padding.
            frozen: so many first stages of the body run without gradient.
        """
        levels = self.pyramid(self.body(colours, frozen))
        return Features([level.float() for level in levels], colours.float(), sizes)

    def windows(self, features: Features, images: Tensor, boxes: Tensor) -> Windows:
        """Read windows of images.

        Args:
            features: of a batch.
            images: (N,) int64 index in the batch.
            boxes: (N, 4) float xyxy, square, pixels.
        """
        return Windows(
            boxes=boxes,
            images=images,
            cells=sample_pyramid(features.levels, images, boxes),
            colours=sample(features.colours, 1, images, boxes, FINE),
            valid=inside(boxes, images, features.sizes, GRID),
            log_side=log_side(boxes[:, 2] - boxes[:, 0]),
        )

    def forward(self, features: Features, windows: Windows, prompts: Prompts) -> Drawn:
        """Masks of the object that the prompts mean, one row a window."""
        boxes, images = windows.boxes, windows.images
        sides = boxes[:, 2] - boxes[:, 0]
        query = read_points(features.levels, images, sides, prompts.positive)
        mask = prompts.mask
        present = boxes.new_zeros(len(boxes), FINE, FINE) if mask is None else mask
        near = bumps(boxes, prompts.positive, FINE, (1.0, 5.0))
        apart = bumps(boxes, prompts.negative, FINE, (1.0,))
        others = bumps(boxes, prompts.others, GRID, (1.2,))
        has_mask = float(mask is not None)
        fine = torch.cat([near[:, :1], apart, present[:, None]], 1)
        coarse = F.avg_pool2d(torch.cat([near, apart, present[:, None]], 1), FINE // GRID)
        flat = torch.stack([windows.log_side, torch.full_like(windows.log_side, has_mask)], 1)
        maps = torch.cat(
            [
                coarse,
                others,
                windows.valid[:, None],
                flat[:, :, None, None].expand(-1, -1, GRID, GRID),
            ],
            1,
        )
        clicked = near[:, :1]
        colour = (windows.colours * clicked).sum((2, 3)) / clicked.sum((2, 3)).clamp(min=1e-3)
        distance = (windows.colours - colour[:, :, None, None]).square().sum(1, keepdim=True)
        guide = torch.cat([windows.colours, distance.clamp(min=1e-6).sqrt(), fine], 1)
        logits, cells, whole = (t.float() for t in self.unet(windows.cells, query, maps, guide))
        own = torch.sigmoid(F.avg_pool2d(logits.detach(), FINE // GRID))
        drawn = Drawn(
            mask_logits=logits,
            iou=logits,
            own=own,
            cells=cells.detach(),
            whole=whole.detach(),
            clicked=maps[:, 0],
            log_side=windows.log_side,
        )
        with torch.autocast("cpu", enabled=False):  # estimates differ by less than bfloat16 tells
            return replace(drawn, iou=self.judge(drawn, own))


class _Pyramid(nn.Module):
    """Lateral 1×1 convolutions, a path from coarse to fine, and a 3×3 at each level."""

    levels = 3

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([_conv(c, _PYRAMID, 1) for c in channels])
        self.smooth = nn.ModuleList([_conv(_PYRAMID, _PYRAMID, 3) for _ in channels[:-1]])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2..C5 -> (B, 48, h, w) at strides 4, 8, 16."""
        x = self.lateral[-1](features[-1])
        out = []
        for index in range(len(features) - 2, -1, -1):
            up = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.smooth[index](self.lateral[index](features[index]) + up)
            out.append(x)
        return out[::-1]


class _UNet(nn.Module):
    """Window features and prompt maps -> mask logits."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = _WIDTHS
        self.key = nn.Conv2d(_PYRAMID, _HEADS * _KEY, 1, bias=False)
        self.query = nn.Linear(_PYRAMID, _HEADS * _KEY, bias=False)
        self.enter = _conv(_PYRAMID + _HEADS + _MAPS, a, 3)
        self.down = nn.ModuleList([_conv(i, o, 3, 2) for i, o in ((a, b), (b, c), (c, d))])
        self.encode = nn.ModuleList([_Residual(w, 1 if w == a else 2) for w in (a, b, c, d)])
        self.narrow = nn.ModuleList([nn.Conv2d(i, o, 1) for i, o in ((b, a), (c, b), (d, c))])
        self.decode = nn.ModuleList([_Residual(w, 1) for w in (a, b, c)])
        self.colour = _conv(4 + 3, _GUIDE_WIDTH, 3)
        self.refine = _conv(_FINE_WIDTH + _GUIDE_WIDTH, _FINE_WIDTH, 3)
        self.spread = nn.Sequential(nn.Conv2d(a, _FINE_WIDTH * 4, 1), nn.PixelShuffle(2))
        self.masks = nn.Conv2d(_FINE_WIDTH, MASKS, 3, padding=1)
        nn.init.constant_(self.masks.bias, -1.0)  # type: ignore[arg-type]

    def forward(
        self, cells: Tensor, query: Tensor, maps: Tensor, guide: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> (N, MASKS, FINE, FINE) logits, (N, 64, GRID, GRID), (N, 160)."""
        cells = cells.contiguous(memory_format=torch.channels_last)
        keys = self.key(cells).unflatten(1, (_HEADS, _KEY))
        asked = F.normalize(self.query(query).unflatten(1, (_HEADS, _KEY)), dim=2)
        alike = (keys * asked[..., None, None]).sum(2)
        alike = alike * torch.rsqrt(keys.square().sum(2) + 1e-4)
        x = torch.cat([cells, alike.to(cells.dtype), maps.to(cells.dtype)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.encode[0](self.enter(x))
        skips = [x]
        for down, encode in zip(self.down, self.encode[1:], strict=True):
            skips.append(encode(down(skips[-1])))
        whole = skips[-1].mean((2, 3))
        y = skips.pop()
        for narrow, decode in zip(reversed(self.narrow), reversed(self.decode), strict=True):
            up = F.interpolate(narrow(y), scale_factor=2.0, mode="bilinear", align_corners=False)
            y = decode(skips.pop() + up)
        colour = self.colour(guide.contiguous(memory_format=torch.channels_last))
        return self.masks(self.refine(torch.cat([self.spread(y), colour], 1))), y, whole


class IouHead(nn.Module):
    """The IoU that a mask has with the object that is meant."""

    figures = 3 * MASKS + 6

    def __init__(self) -> None:
        super().__init__()
        a, d = _WIDTHS[0], _WIDTHS[-1]
        self.layers = nn.Sequential(
            nn.Linear(2 * a + d + self.figures, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 1),
        )

    def forward(self, drawn: Drawn, masks: Tensor) -> Tensor:
        """(N, K) IoU in [0, 1] of masks (N, K, GRID, GRID) in [0, 1] with the object meant."""
        own, click, log_side = drawn.own, drawn.clicked, drawn.log_side
        count = masks.shape[1]
        mean = F.avg_pool2d(masks, 3, 1, 1)
        ring = mean * (1 - mean)
        means = [_pooled(drawn.cells, masks), _pooled(drawn.cells, ring)]
        one, two = masks.flatten(2), own.flatten(2)
        area, own_area = one.mean(2), two.mean(2)
        shared = torch.einsum("nkp,nmp->nkm", one, two) / one.shape[2]
        union = (area[:, :, None] + own_area[:, None] - shared).clamp(min=1e-4)
        own_part = shared / own_area[:, None].clamp(min=1e-4)
        mask_part = shared / area[:, :, None].clamp(min=1e-4)
        frame = torch.cat([masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1]], 2)
        at_click = torch.einsum("nkp,np->nk", one, click.flatten(1)) / click.flatten(1).sum(1)[
            :, None
        ].clamp(min=1e-3)
        sure = (4 * (one - 0.5).square()).mean(2)
        soft = (one * (1 - one)).mean(2) / area.clamp(min=1e-3)
        side = log_side[:, None].expand_as(area)
        plain = torch.stack([area.sqrt(), frame.mean(2), at_click, sure, soft, side], 2)
        background = drawn.whole[:, None].expand(-1, count, -1)
        figures = torch.cat([shared / union, own_part, mask_part, plain], 2)
        logits: Tensor = self.layers(torch.cat([*means, background, figures], 2))
        return torch.sigmoid(logits[..., 0].float())


class _Residual(nn.Module):
    """One or two 3×3 convolutions and a way past them."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*[_conv(width, width, 3) for _ in range(depth - 1)])
        self.last = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.last(self.before(x)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _pooled(cells: Tensor, weights: Tensor) -> Tensor:
    """(N, C, h, w) averaged with weights (N, K, h, w) -> (N, K, C)."""
    total = torch.einsum("nchw,nkhw->nkc", cells, weights)
    return total / weights.sum((2, 3))[..., None].clamp(min=1e-2)
