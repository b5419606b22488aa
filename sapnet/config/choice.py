"""Choose a preset by the machine, the dataset and the weights that there are. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sapnet.config.estimate import Machine, Workload
from sapnet.config.presets import PRESETS, bodies_of, demo

LEAST_GPU_BYTES = {"resnet18": 4_000_000_000, "resnet50": 7_500_000_000}
"""Memory of a GPU from which on a light SOLOv2 of this body is trained there."""
_SHRINK = 6 / 5  # by so much `demo` may shrink an image
_MOST_OBJECTS = 40  # on an image, for the grids of `demo`
_OF_BODY = {
    "efficientnet_lite0": "cpu",
    "mobilenet_v2": "cpu",
    "resnet18": "light_r18",
    "resnet34": "light_r34",
    "resnet50": "light_r50",
    "resnet101": "paper_r101_3x",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A preset, and why it was chosen, in short sentences."""

    preset: str
    reasons: tuple[str, ...]


def choose_preset(
    machine: Machine,
    workload: Workload,
    weights_body: str | None = None,
    model: Mapping[str, Any] | None = None,
    sam: Sequence[str] = (),
) -> Choice:
    """Choose among `cpu`, `gpu` and `demo`, or what weights that are given want.

    Args:
        weights_body: the body whose weights a training is given; None where it is given none.
        model: settings of the model that the training goes on from, as `Config.to_dict` wrote
            them.
        sam: names of SAM's checkpoints.
    """
    reasons = [_described(machine), f"{workload.images:,} images, {workload.objects:,} objects."]
    if sam and machine.gpu is not None and workload.proposals not in ("sam", "sam2"):
        reasons.append(f"Proposals by SAM ({sam[0]}) are possible, and were not asked for.")
    if model is not None:
        preset = _of_model(model)
        return Choice(preset, (*reasons, f"The model that it goes on from is of {preset}'s kind."))
    preset, why = _by_machine(machine)
    if weights_body is not None:
        if weights_body not in bodies_of(preset):
            preset = _OF_BODY.get(weights_body, preset)
            why = f"The backbone weights that are given are of {weights_body}."
        return Choice(preset, (*reasons, why))
    if preset == "cpu" and _is_small(workload):
        why = "The images are small, and no weights are given: demo is made for that."
        return Choice("demo", (*reasons, why))
    return Choice(preset, (*reasons, why))


def _described(machine: Machine) -> str:
    cores = f"{machine.cores} core{'s' if machine.cores != 1 else ''}"
    if machine.gpu is None:
        return f"{cores} and no GPU."
    return f"{cores} and a GPU, {machine.gpu.name} with {machine.gpu.memory / 1e9:.0f} GB."


def _by_machine(machine: Machine) -> tuple[str, str]:
    if machine.gpu is None:
        return "cpu", "Without a GPU the small network of cpu is the one that is done in time."
    if machine.gpu.memory >= LEAST_GPU_BYTES["resnet50"]:
        return "gpu", "The GPU has the memory for a ResNet-50 at 448 pixels."
    if machine.gpu.memory >= LEAST_GPU_BYTES["resnet18"]:
        return "light_r18", "The GPU has the memory for a ResNet-18 at 448 pixels, not a ResNet-50."
    return "cpu", "The GPU has too little memory for more than the small network of cpu."


def _of_model(model: Mapping[str, Any]) -> str:
    """The model's own preset, else the one of its body."""
    body, preset = (model.get("backbone") or {}).get("name"), model.get("preset")
    if preset in PRESETS and body in bodies_of(preset):
        return str(preset)
    return _OF_BODY.get(str(body), "cpu")


def _is_small(workload: Workload) -> bool:
    """Whether most images lose next to nothing at the input size of `demo`."""
    if not workload.images or workload.objects > _MOST_OBJECTS * workload.images:
        return False
    data = demo().data
    short, long = data.short_sides[0] * _SHRINK, data.max_long_side * _SHRINK
    small = sum(
        group.images
        for group in workload.groups
        if min(group.width, group.height) <= short and max(group.width, group.height) <= long
    )
    return small > workload.images / 2
