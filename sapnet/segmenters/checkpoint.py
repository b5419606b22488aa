"""The trained segmenter as a file: weights and their description together, and what predicts.

`model.pt` holds {"state_dict", "meta"} and loads with `weights_only=True`. Beside it lie
`model.safetensors`, the same in a form that other programs read (`meta` is in its header), and
`model.json`, `meta` again, for people.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sapnet.config.resolve import config_from_dict
from sapnet.config.schema import Config
from sapnet.data.mirrored import part_predictor
from sapnet.data.pixels import Ranges
from sapnet.data.resize import PAD_TO, input_size
from sapnet.data.samples import to_tensor
from sapnet.data.tiles import Tiles, predict_large
from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.base import Segmenter, as_results
from sapnet.segmenters.build import SegmenterBuilder, build_segmenter
from sapnet.segmenters.solov2.optimize import make_ready
from sapnet.types import ByteArray, Category
from sapnet.utils.files import atomic_write, write_text
from sapnet.utils.precision import mixed

FORMAT = 1
PART, BODY = "part", "body"
"""An entry of `meta`, and its value where the file holds a backbone's body alone: such a file is to
start a training with, and cannot predict."""
META = "sapnet"
"""Under which `meta` stands in the header of model.safetensors, as JSON."""


def save_artifact(folder: Path, segmenter: Segmenter, meta: dict[str, Any]) -> None:
    """Write model.pt, model.safetensors and model.json.

    Args:
        folder: in which.
        segmenter: whose weights.
        meta: categories, config, weights origin, seed, versions; JSON.
    """
    save_weights(folder, segmenter.state_dict(), meta)


def save_weights(folder: Path, weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """The same for weights by their names: those of a segmenter, or of its body alone (`PART`)."""
    meta = {"format": FORMAT, **meta}
    state = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    write_text(folder / "model.json", json.dumps(meta, indent=2) + "\n")
    with atomic_write(folder / "model.safetensors") as file:
        file.write(safetensors.torch.save(state, {"format": "pt", META: json.dumps(meta)}))
    with atomic_write(folder / "model.pt") as file:
        torch.save({"state_dict": state, "meta": json.dumps(meta)}, file)


@dataclass(frozen=True)
class Predictor:
    """A trained segmenter that predicts.

    Attributes:
        categories: by label, 0..K-1, with the user's own ids.
    """

    segmenter: Segmenter
    config: Config
    categories: tuple[Category, ...]
    meta: dict[str, Any]

    @property
    def pixel_ranges(self) -> Ranges:
        """By which images of more than 8 bits are to be read; empty for models from before."""
        return self.meta.get("pixel_ranges") or {}

    def predict(
        self,
        image: ByteArray,
        score_threshold: float = 0.1,
        tiles: Tiles = "auto",
        mirror: bool = False,
    ) -> list[dict[str, Any]]:
        """COCO results of one image, best first.

        Args:
            image: (H, W, 3) uint8 RGB.
            score_threshold: confidence threshold of the results.
            tiles: whether the image is cut into overlapping tiles, see `sapnet.data.tiles`.
            mirror: whether its mirror image is predicted too, see `sapnet.data.mirrored`; twice
                the time.

        Returns:
            category_id, segmentation (RLE at image size), bbox (xywh), score in [0, 1] of each.
        """
        predict = part_predictor(self._predict, score_threshold, mirror)
        return predict_large(image, predict, tiles, self.meta)

    @torch.inference_mode()
    def _predict(self, image: ByteArray, score_threshold: float) -> list[dict[str, Any]]:
        h, w = image.shape[:2]
        data = self.config.data
        size = input_size((h, w), max(data.short_sides), data.max_long_side)
        device = next(self.segmenter.parameters()).device
        pixels = padded(to_tensor(image, size)).to(device, memory_format=torch.channels_last)
        wanted = self.config.train.precision
        with mixed(device, "float32" if wanted == "float32" else "auto"):
            _, output = self.segmenter(pixels)
        (instances,) = self.segmenter.decode(output, [size], [(h, w)])
        results = [r for r in as_results(instances) if r["score"] >= score_threshold]
        for result in results:
            result["category_id"] = self.categories[result.pop("label")].id
        return sorted(results, key=lambda r: -r["score"])


def padded(image: Tensor) -> Tensor:
    """(3, h, w) to (1, 3, H, W), zeros to a multiple of 64."""
    h, w = image.shape[1:]
    return torch.nn.functional.pad(image, (0, -w % PAD_TO, 0, -h % PAD_TO))[None]


def load_predictor(
    path: Path,
    device: str = "auto",
    *,
    ready: bool = True,
    build: SegmenterBuilder = build_segmenter,
) -> Predictor:
    """Read `model.pt` or `model.safetensors`, told apart by what is in it.

    Args:
        path: of the file.
        device: "auto" takes a GPU where there is one.
        ready: make it fast, for good (`make_ready`); without, its tensors are the file's own.
        build: makes the segmenter from the file's configuration.

    Raises:
        WeightsUnavailable: the file is missing, damaged or of another kind.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    content = read_content(path)
    try:
        if not isinstance(content, dict):
            raise TypeError("it holds no description")
        meta = json.loads(content["meta"])
        if meta.get(PART) == BODY:
            raise ValueError("it holds a backbone alone; a training can go on from it")
        if meta["format"] != FORMAT:
            raise ValueError(f"its format is {meta['format']}, not {FORMAT}")
        config = config_from_dict(meta["config"])
        backbone = BackboneWithFpn(config.backbone, pretrained=meta["weights"]["kind"] != "random")
        categories = tuple(Category(c["id"], c["name"]) for c in meta["categories"])
        segmenter = build(config, len(categories), backbone)
        segmenter.load_state_dict(content["state_dict"])
    except (
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,  # RecursionError too
        InvalidConfig,
    ) as error:
        raise WeightsUnavailable(
            f"{path.name} is not a checkpoint of this project: {error}"
        ) from error
    segmenter = segmenter.to(device).eval()
    return Predictor(make_ready(segmenter) if ready else segmenter, config, categories, meta)


def read_content(path: Path) -> Any:
    """Read a file: {"state_dict", "meta"}, where it is one of ours or of safetensors."""
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # 8 bytes of length, then JSON
        if not is_safetensors:
            return torch.load(path, map_location="cpu", weights_only=True)
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            return {"state_dict": state, "meta": (file.metadata() or {}).get(META)}
    except Exception as error:  # the unpickler stumbles over damaged bytes in any way it likes
        raise WeightsUnavailable(f"{path.name} cannot be read: {error}") from error
