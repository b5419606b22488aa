"""A model in ONNX, asked without torch: numpy, Pillow, pycocotools and onnxruntime do.

An example for those who deploy: what is around the graph is resizing the image and the masks
(sapnet/data/resize.py). The graph itself normalises the image and decodes the network's output.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sapnet.data.masks import encode, tight_box
from sapnet.data.mirrored import part_predictor
from sapnet.data.pixels import Ranges
from sapnet.data.resize import MASK_STRIDE, PAD_TO, input_size, resize_mask
from sapnet.data.tiles import Tiles, predict_large
from sapnet.errors import WeightsUnavailable
from sapnet.types import ByteArray, Category, FloatArray


class OnnxPredictor:
    """The counterpart of `checkpoint.Predictor` for a file that `sapnet onnx export` wrote."""

    def __init__(self, path: Path, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        """Load a file.

        Args:
            path: of the file.
            providers: of onnxruntime, by preference.

        Raises:
            WeightsUnavailable: the file is missing, damaged or of another kind, or onnxruntime is
                not installed (the extra `onnx`).
        """
        try:
            import onnxruntime
        except ImportError as error:
            words = "ONNX models need onnxruntime: pip install 'sapnet-service[onnx]'"
            raise WeightsUnavailable(words) from error
        try:
            self._session = onnxruntime.InferenceSession(path, providers=list(providers))
            about = json.loads(self._session.get_modelmeta().custom_metadata_map["sapnet"])
            self._size = about["short_side"], about["max_long_side"]
            self._threshold = about["mask_threshold"]
            self._meta = about
            self.pixel_ranges: Ranges = about.get("pixel_ranges") or {}
            self.categories = tuple(Category(c["id"], c["name"]) for c in about["categories"])
        except Exception as error:  # onnxruntime's own have no common root
            raise WeightsUnavailable(
                f"{path.name} is no ONNX model of this project: {error}"
            ) from error

    def predict(
        self,
        image: ByteArray,
        score_threshold: float = 0.1,
        tiles: Tiles = "auto",
        mirror: bool = False,
    ) -> list[dict[str, Any]]:
        """COCO results of one image, best first, as those of `checkpoint.Predictor.predict`.

        Args:
            image: (H, W, 3) uint8 RGB.
            score_threshold: confidence threshold of the results.
            tiles: whether the image is cut into overlapping tiles, see `sapnet.data.tiles`.
            mirror: whether its mirror image is predicted too, see `sapnet.data.mirrored`; twice
                the time.
        """
        predict = part_predictor(self._predict, score_threshold, mirror)
        return predict_large(image, predict, tiles, self._meta)

    def _predict(self, image: ByteArray, score_threshold: float) -> list[dict[str, Any]]:
        original = image.shape[0], image.shape[1]
        content = input_size(original, *self._size)
        feeds = {"image": network_input(image, content), "content": np.array(content, np.int64)}
        labels, scores, masks = self._session.run(["labels", "scores", "masks"], feeds)
        height, width = (-(-side // MASK_STRIDE) for side in content)
        results = []
        for label, score, probs in zip(labels, scores, masks[:, :height, :width], strict=True):
            part, top, left = resize_mask(probs, content, original, self._threshold)
            if score < score_threshold or not part.any():
                continue
            mask = np.zeros(original, dtype=np.uint8, order="F")
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
            rle = encode(mask)
            results.append(
                {
                    "segmentation": rle,
                    "bbox": tight_box(rle),
                    "score": float(score),
                    "category_id": self.categories[label].id,
                }
            )
        return results


def network_input(image: ByteArray, size: tuple[int, int]) -> FloatArray:
    """The graph's input of an image: resized, and padded with zeros to multiples of 64.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: (h, w) to resize to, bilinearly with antialiasing.

    Returns:
        (1, 3, h', w') float32 in [0, 255].
    """
    height, width = size
    out = np.zeros((1, 3, height + -height % PAD_TO, width + -width % PAD_TO), dtype=np.float32)
    for channel in range(3):  # as floats, one at a time: Pillow would round colours to bytes
        plane = Image.fromarray(image[:, :, channel].astype(np.float32))
        resized = plane.resize((width, height), Image.Resampling.BILINEAR)
        out[0, channel, :height, :width] = np.asarray(resized)
    return out
