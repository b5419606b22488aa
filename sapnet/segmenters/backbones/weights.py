"""Loading of the backbone's weights: completely, or with an error."""

import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchvision
from torch import Tensor, nn

from sapnet.errors import WeightsUnavailable
from sapnet.proposals.prompter.weights import LITE0_SHA256, lite0_path, lite0_state
from sapnet.segmenters.backbones.lite0 import own_names
from sapnet.utils.files import file_sha256

Kind = Literal["file", "package", "torchvision", "random"]
ORIGINS: tuple[Kind, ...] = get_args(Kind)
_CLASSIFIERS = ("fc.", "classifier.")
_DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """The origin of a body's weights.

    Attributes:
        kind: how the body was initialised.
        detail: the file's name, a URL or a reason.
        sha256: of the file.
        model: sha256 of the model that the training went on from, whose origin this is.
    """

    kind: Kind
    detail: str
    sha256: str | None = None
    model: str | None = None

    def in_words(self) -> str:
        """Return the origin in one line, such as "file: name"."""
        began = f"{self.kind}: {self.detail}"
        return f"model {self.model[:12]}, which began with {began}" if self.model else began


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, see `exactly`."""
    module.load_state_dict(exactly(module, state, what))


def exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The values of `state` for a module, whose own values do not count.

    Every key must be there and fit, and none may be left over; `num_batches_tracked`, which nothing
    reads, is free to be missing or too many. `what` names the weights in the error.

    Returns:
        All of the module's, in its dtypes and its order.

    Raises:
        WeightsUnavailable: names the missing, the misfitting and the unknown keys.
    """
    own = module.state_dict()
    given = {k: v for k, v in state.items() if k in own or not k.endswith(".num_batches_tracked")}
    for key, value in own.items():
        if key.endswith(".num_batches_tracked"):
            given.setdefault(key, torch.zeros(value.shape, dtype=value.dtype))
    problems = {
        "missing": [k for k in own if k not in given],
        "of another shape": [k for k in own if k in given and own[k].shape != given[k].shape],
        "unknown": [k for k in given if k not in own],
    }
    listed = [f"{len(keys)} {name} ({_some(keys)})" for name, keys in problems.items() if keys]
    if listed:
        raise WeightsUnavailable(f"{what} does not fit the model: keys {'; '.join(listed)}")
    return {key: given[key].to(value.dtype) for key, value in own.items()}


def load_file(body: nn.Module, path: Path) -> WeightsOrigin:
    """Load a torchvision-style state dict (any float dtype, classifier keys ignored) into `body`.

    A checkpoint of a segmenter, a model.pt of ours or an mmdetection file, gives its backbone.

    Raises:
        WeightsUnavailable: no such file, not a state dict, or keys that do not fit.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler stumbles over damaged bytes in any way it likes
        raise WeightsUnavailable(f"{path} cannot be read as weights: {error}") from error
    state = _backbone_of(state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsUnavailable(f"{path} is not a state dict (names to tensors)")
    load_exactly(body, own_names(without_classifier(state)), str(path))
    return WeightsOrigin("file", path.name, file_sha256(path))


def load_packaged(body: nn.Module) -> WeightsOrigin:
    """Load the weights of EfficientNet-Lite0 that are installed with this package.

    Raises:
        WeightsUnavailable: the data package is missing, or its file is another.
    """
    state = {f"net.{key}": value for key, value in lite0_state().items()}
    load_exactly(body, state, str(lite0_path()))
    return WeightsOrigin("package", lite0_path().name, LITE0_SHA256)


def load_torchvision(body: nn.Module, name: str) -> WeightsOrigin:
    """Load torchvision's ImageNet weights (version 1, hash checked), downloading them if need be.

    Raises:
        OSError: no network, or no place to keep them. WeightsUnavailable: they do not fit.
    """
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        with _timeout(_DOWNLOAD_TIMEOUT):
            state = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except RuntimeError as error:  # torch.hub's word for a hash that differs
        raise WeightsUnavailable(f"{weights.url}: {error}") from error
    load_exactly(body, without_classifier(state), weights.url)
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    return WeightsOrigin("torchvision", weights.url, file_sha256(cached))


def init_random(body: nn.Module, generator: torch.Generator | None) -> None:
    """He initialisation (fan-out) of every convolution from `generator`; norms start neutral."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)


def warn_random(name: str, reason: str) -> None:
    """Say once, in words that a user understands, that training starts from nothing."""
    warnings.warn(
        f"{name} starts from random weights ({reason}): results will be much poorer than with "
        "ImageNet weights; give a weights file to avoid it",
        stacklevel=3,
    )


def _backbone_of(content: Any) -> Any:
    """The body's part of {"state_dict": …}, under its own names; anything else as it is."""
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        return content
    state = content["state_dict"]
    prefix = "backbone.body." if any(k.startswith("backbone.body.") for k in state) else "backbone."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what classifies images in torchvision's networks."""
    return {k: v for k, v in state.items() if not k.startswith(_CLASSIFIERS)}


def _some(keys: list[str], most: int = 8) -> str:
    return ", ".join(keys[:most]) + (", …" if len(keys) > most else "")


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torch.hub sets no timeout of its own and would hang where a firewall drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
