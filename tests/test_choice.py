"""The preset that `auto` stands for: by machine, dataset and weights, and why."""

from typing import get_args

import pytest
import torch

from sapnet.config.choice import choose_preset
from sapnet.config.estimate import Gpu, Machine, SizeGroup, Workload
from sapnet.config.presets import PRESETS
from sapnet.config.resolve import body_difference, resolve_config
from sapnet.config.schema import Body
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.utils.backbone_file import body_of_file, body_of_names

PHOTOS = Workload((SizeGroup(640, 480, 90, 900),), "hierarchy+prompter")
SCENES = Workload((SizeGroup(224, 224, 48, 241), SizeGroup(640, 480, 3, 9)), "hierarchy")
CROWDED = Workload((SizeGroup(224, 224, 48, 48 * 60),), "hierarchy")
CPU = Machine(2)


def with_gpu(gigabytes):
    return Machine(16, Gpu("GeForce", int(gigabytes * 1e9)))


@pytest.mark.parametrize(
    ("machine", "workload", "weights", "preset"),
    [
        (CPU, PHOTOS, None, "cpu"),
        (Machine(64), PHOTOS, None, "cpu"),
        (CPU, SCENES, None, "demo"),
        (CPU, CROWDED, None, "cpu"),
        (CPU, SCENES, "mobilenet_v2", "cpu"),
        (CPU, PHOTOS, "efficientnet_lite0", "cpu"),
        (CPU, PHOTOS, "resnet50", "light_r50"),
        (CPU, PHOTOS, "resnet18", "light_r18"),
        (CPU, Workload((), "hierarchy"), None, "cpu"),
        (with_gpu(12), PHOTOS, None, "gpu"),
        (with_gpu(12), SCENES, None, "gpu"),
        (with_gpu(8), PHOTOS, "resnet50", "gpu"),
        (with_gpu(12), PHOTOS, "mobilenet_v2", "cpu"),
        (with_gpu(12), PHOTOS, "resnet101", "paper_r101_3x"),
        (with_gpu(6), PHOTOS, None, "light_r18"),
        (with_gpu(2), PHOTOS, None, "cpu"),
    ],
)
def test_the_preset_fits_machine_dataset_and_weights(machine, workload, weights, preset):
    choice = choose_preset(machine, workload, weights)
    assert choice.preset == preset
    assert all(reason.endswith(".") and len(reason) < 120 for reason in choice.reasons)
    if weights:
        assert resolve_config(preset=choice.preset, body=weights).backbone.name == weights
        assert (
            weights in choice.reasons[-1] or "GPU" in choice.reasons[-1] or "cpu" in choice.preset
        )


@pytest.mark.parametrize("machine", [CPU, with_gpu(12)])
@pytest.mark.parametrize("before", [*PRESETS, "mmdetection"])
def test_a_training_goes_on_with_the_body_of_its_model(machine, before):
    settings = resolve_config("sapnet++", before if before in PRESETS else "light_r50").to_dict()
    choice = choose_preset(machine, SCENES, "mobilenet_v2", {**settings, "preset": before})
    body = settings["backbone"]["name"]
    config = resolve_config("sapnet++", choice.preset, body=body)
    assert body_difference(config, settings) is None
    if before in PRESETS:
        assert choice.preset == before


@pytest.mark.parametrize("before", ["cpu", "demo"])
def test_a_model_of_the_first_release_keeps_its_body(before):
    settings = resolve_config("sapnet++", before, body="mobilenet_v2").to_dict()
    assert settings["backbone"]["name"] == "mobilenet_v2"
    choice = choose_preset(CPU, PHOTOS, None, settings)
    assert choice.preset == before
    assert body_difference(resolve_config(preset=before, body="mobilenet_v2"), settings) is None
    # no other preset takes a body that is not its own, and no preset one that it does not suit
    assert resolve_config(preset="light_r18", body="mobilenet_v2").backbone.name == "resnet18"
    assert resolve_config(preset=before, body="resnet50").backbone.name == "efficientnet_lite0"


def test_reasons_name_what_was_looked_at():
    reasons = choose_preset(with_gpu(12), PHOTOS, sam=["cells"]).reasons
    told = " ".join(reasons)
    for what in ("16 cores", "GeForce with 12 GB", "90 images", "900 objects", "SAM (cells)"):
        assert what in told
    asked = Workload(PHOTOS.groups, "sam")
    assert "SAM" not in " ".join(choose_preset(with_gpu(12), asked, sam=["cells"]).reasons)
    assert "no GPU" in choose_preset(CPU, PHOTOS).reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("body", get_args(Body))
def test_the_body_of_a_file_is_read_from_its_names(tmp_path, body):
    with torch.device("meta"):
        module = BackboneWithFpn(BackboneConfig(body, fpn_channels=8), pretrained=True).body
    state = {name: torch.zeros(1) for name in module.state_dict()}
    torch.save(state, tmp_path / "plain.pt")
    inner = {f"backbone.body.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {**inner, "head.weight": torch.zeros(1)}}, tmp_path / "model.pt")
    assert body_of_file(tmp_path / "plain.pt") == body
    assert body_of_file(tmp_path / "model.pt") == body


def test_files_without_a_body_have_none(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    for name in ("other", "list", "broken", "missing"):
        assert body_of_file(tmp_path / f"{name}.pt") is None
    assert body_of_names(["layer1.0.conv1.weight", "layer3.0.conv1.weight"]) is None
