"""The segmenter as an ONNX graph: network and decoding in one, for images of any size.

The graph decodes as sapnet/segmenters/solov2/decode.py does, with shapes that do not depend on what
is seen: it carries the `nms_pre` best cells along whatever their score, and those that do not count
have an empty mask, which Matrix NMS does not feel. What is left for the outside is resizing the
image and enlarging the masks, which numpy does (predictor.py).
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sapnet.config.schema import SoloConfig
from sapnet.data.resize import MASK_STRIDE, PAD_TO
from sapnet.segmenters.backbones import IMAGENET_MEAN, IMAGENET_STD
from sapnet.segmenters.checkpoint import Predictor
from sapnet.segmenters.solov2 import SoloV2
from sapnet.segmenters.solov2.decode import least_areas, peaks
from sapnet.segmenters.solov2.matrix_nms import decay_of
from sapnet.utils.files import atomic_write

FORMAT = 1
KEY = "sapnet"
"""Of the metadata in the file: JSON with what predictor.py needs to know."""
OPSET = 20
_LARGEST = 1 << 15  # pixels of a side


class Graph(nn.Module):
    """The graph that is exported: normalisation, network and decoding (Matrix NMS)."""

    def __init__(self, segmenter: SoloV2, config: SoloConfig) -> None:
        super().__init__()
        self.segmenter, self.config = segmenter, config
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)))

    def forward(self, image: Tensor, content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Instances of one image, by falling score.

        Args:
            image: (1, 3, H, W) float32 RGB in [0, 255], H and W multiples of 64.
            content: (2,) int64, its (h, w) without the padding, which may hold anything.

        Returns:
            labels (n,) int64 in 0..K-1; scores (n,) float32 in (0, 1]; masks (n, H/4, W/4) float32,
            probabilities at stride 4, 0 in the padding.
        """
        config = self.config
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        inside = _inside(image.shape[2], image.shape[3], content)
        _, output = self.segmenter((image - mean) * scale * inside)
        scores = torch.cat([peaks(level).flatten(2) for level in output.cls_logits], 2)[0].T
        classes = scores.shape[1]
        scores, best = scores.flatten().topk(min(config.nms_pre, scores.numel()))
        cells, labels = best // classes, best % classes

        features = output.mask_features[0]
        kernels = output.flat_kernels()[0][cells]
        probs = (kernels @ features.flatten(1)).sigmoid()
        probs = probs.unflatten(1, features.shape[1:])
        cells_inside = -(-content // MASK_STRIDE)
        probs = probs * _inside(features.shape[1], features.shape[2], cells_inside)
        masks = (probs > config.mask_threshold) & (scores > config.score_threshold)[:, None, None]
        area = masks.flatten(1).sum(1)
        masks = masks & (area > least_areas(output)[cells])[:, None, None]
        area = masks.flatten(1).sum(1)
        scores = scores * (probs * masks).flatten(1).sum(1) / area.clamp(min=1)

        scores, order = scores.topk(scores.numel())
        flat = masks[order].flatten(1).float()
        decay = decay_of(flat @ flat.T, labels[order], config.nms_kernel, config.nms_sigma)
        scores, best = (scores * decay).topk(min(config.max_instances, scores.numel()))
        kept = ((scores > 0) & (scores >= config.keep_threshold)).nonzero().flatten()
        order = order[best[kept]]
        return labels[order], scores[kept], probs[order]


def _inside(height: int, width: int, size: Tensor) -> Tensor:
    """(height, width) float32: 1 in the first size[0] rows and size[1] columns, else 0."""
    rows, columns = torch.arange(height)[:, None] < size[0], torch.arange(width) < size[1]
    return (rows & columns).float()


def export_onnx(predictor: Predictor, path: Path) -> None:
    """Write `path`, one file with weights, graph and what `OnnxPredictor` needs to know.

    This takes the better part of a minute.

    Raises:
        ImportError: the packages onnx and onnxscript are not installed (the extra `onnx`).
        ValueError: the segmenter is another than SOLOv2.
    """
    import onnx

    if not isinstance(predictor.segmenter, SoloV2):
        raise ValueError(f"a {type(predictor.segmenter).__name__} has no ONNX graph yet")
    graph = Graph(predictor.segmenter.cpu().eval(), predictor.config.solo).eval()
    height, width = (PAD_TO * torch.export.Dim(n, min=1, max=_LARGEST // PAD_TO) for n in "hw")
    example = torch.zeros(1, 3, 3 * PAD_TO, 4 * PAD_TO), torch.tensor([3 * PAD_TO, 4 * PAD_TO])
    with torch.inference_mode():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            dynamic_shapes={"image": {2: height, 3: width}, "content": {}},
            input_names=["image", "content"],
            output_names=["labels", "scores", "masks"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {KEY: json.dumps(description(predictor))})
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def description(predictor: Predictor) -> dict[str, Any]:
    """The metadata of the file."""
    config = predictor.config
    return {
        "format": FORMAT,
        "categories": [{"id": c.id, "name": c.name} for c in predictor.categories],
        "short_side": max(config.data.short_sides),
        "max_long_side": config.data.max_long_side,
        "mask_threshold": config.solo.mask_threshold,
        "pixel_ranges": predictor.pixel_ranges,
        "image_sizes": predictor.meta.get("image_sizes"),
    }
