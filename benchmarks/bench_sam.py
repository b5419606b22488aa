"""From an encoded image of 800×1333 and 30 points to their stored bags, beside `SamPredictor`.

The decoder is vit_b's in size, with random weights that draw smooth masks; both sides get the same
embedding and the same 60 prompts (each point alone, and with its four nearest as negatives).
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch
from comparison import Row, compare, row
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from sapnet.proposals.bags import make_bags
from sapnet.proposals.sam.generator import SamGenerator
from sapnet.proposals.sam.prompting import nearest
from sapnet.proposals.store import ProposalStore
from sapnet.types import ImageInfo, PointAnnotation

SIZE, FRAME, GRID, WIDTH = (800, 1333), 1024, 64, 256
AGAINST = "SamPredictor.predict prompt by prompt, then pycocotools' RLE of each mask"


def build() -> Sam:
    """vit_b but for its encoder, whose work is no part of this."""
    torch.manual_seed(0)
    model = Sam(
        image_encoder=ImageEncoderViT(
            img_size=FRAME, embed_dim=8, depth=1, num_heads=1, out_chans=WIDTH, window_size=14
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(GRID, GRID),
            input_image_size=(FRAME, FRAME),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=2048, num_heads=8),
            transformer_dim=WIDTH,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    ).eval()
    upscaling = model.mask_decoder.output_upscaling
    for layer in (upscaling[0], upscaling[3]):  # one weight for the quarters of a cell: no checks
        layer.weight.data[:] = layer.weight.data.mean((2, 3), keepdim=True) * 2
    return model


def embedding() -> torch.Tensor:
    """(1, C, h, w), smooth, as those of photographs are."""
    coarse = torch.randn(1, WIDTH, 9, 9, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (GRID, GRID), mode="bicubic")


def work(
    points: int, folder: Path, device: str = "cpu"
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Ours and the peer's, on one model and one embedding."""
    model, features = build().to(device), embedding().to(device)
    xy = np.random.default_rng(0).uniform((0, 0), (SIZE[1], SIZE[0]), (points, 2))
    annotations = [PointAnnotation(i, 1, 1, x, y) for i, (x, y) in enumerate(xy.tolist())]
    image, info = np.zeros((*SIZE, 3), np.uint8), ImageInfo(1, "a.jpg", SIZE[1], SIZE[0])
    generator, store = SamGenerator(model=model, device=device), ProposalStore(folder)
    generator.network.encode = lambda image: (features,)

    keys = count()

    def ours() -> None:
        store.put(f"{next(keys):064x}", make_bags(generator, image, info, annotations))

    predictor = SamPredictor(model)
    predictor.features, predictor.is_image_set = features, True
    predictor.original_size = SIZE
    predictor.input_size = generator.network.frame(SIZE).content

    def peer() -> list[dict[str, object]]:
        rles: list[dict[str, object]] = []
        for index in range(points):
            for chosen in ([index], [index, *nearest(xy, index, 4)]):
                labels = np.array([1] + [0] * (len(chosen) - 1))
                masks, _, _ = predictor.predict(xy[chosen] - 0.5, labels)
                rles += [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
        return rles

    return ours, peer


def peak(side: str, points: int) -> float:
    """MiB that one side needs beyond what was there when its work began, in its own process."""
    command = [sys.executable, __file__, side, str(points)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(small: bool) -> list[Row]:
    points = 4 if small else 30
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = work(points, Path(folder))
        time = compare(
            f"SAM, {points} points to stored bags",
            ours,
            peer,
            against=AGAINST,
            goal=2,
            rounds=1 if small else 5,
            sample=0,
        )
    pairs = [(peak("ours", points), peak("peer", points)) for _ in range(1 if small else 3)]
    name = f"SAM, {points} points: peak memory"
    return [time, row(name, pairs, unit="MiB", against=AGAINST, goal=2)]


def _peak_of(side: str, points: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        todo = work(points, Path(folder))[0 if side == "ours" else 1]
        work(1, Path(folder))[0]()  # compiles, and loads what both sides load
        before = _kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        todo()
        return (_kib("VmHWM") - before) / 1024


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    print(_peak_of(sys.argv[1], int(sys.argv[2])))
