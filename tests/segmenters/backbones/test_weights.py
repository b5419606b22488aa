"""Where weights come from, what is frozen, and what is said when they do not fit."""

import hashlib
import warnings

import pytest
import torch
import torchvision

from sapnet.errors import WeightsUnavailable
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn, build_backbone
from sapnet.segmenters.backbones.norm import FrozenBatchNorm

SMALL = BackboneConfig("mobilenet_v2", fpn_channels=8)


@pytest.fixture(scope="module")
def network():
    """A torchvision MobileNetV2 whose batch norms have seen data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.mobilenet_v2(weights=None)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_a_file_gives_torchvisions_own_features(network, file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, origin = build_backbone(SMALL, file)
    assert origin.kind == "file"
    assert origin.detail == file.name  # a model tells no one where it was made
    assert origin.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        last = model.train().body(image)[-1]  # train: the statistics stay frozen
        torch.testing.assert_close(last, network.features(image))


@pytest.mark.slow
def test_a_resnets_features(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.resnet50(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    model, _ = build_backbone(BackboneConfig("resnet50", fpn_channels=8), tmp_path / "weights.pt")
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        for stage, got in zip(("1", "2", "3", "4"), model.body(image), strict=True):
            x = getattr(net, f"layer{stage}")(x)
            torch.testing.assert_close(got, x)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["backbone.body.", "backbone."])
def test_a_segmenters_checkpoint_gives_its_backbone(network, tmp_path, prefix):
    inside = {k: v for k, v in network.state_dict().items() if k.startswith("features.")}
    state = {f"{prefix}{k}": v for k, v in inside.items()}
    rest = {"backbone.fpn.x": torch.zeros(1)} if "body" in prefix else {"neck.x": torch.zeros(1)}
    torch.save({"state_dict": {**state, **rest}, "meta": "{}"}, tmp_path / "model.pt")
    model, origin = build_backbone(SMALL, tmp_path / "model.pt")
    got = model.body.state_dict()
    assert all(torch.equal(got[key], value) for key, value in inside.items())
    assert (origin.kind, origin.detail) == ("file", "model.pt")


@pytest.mark.slow
def test_half_precision_is_cast(network, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    model, _ = build_backbone(SMALL, tmp_path / "half.pt")
    weight = model.body.features[0][0].weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half["features.0.0.weight"].float())


@pytest.mark.slow
def test_pretrained_freezes_batch_norm_and_the_first_stages(file):
    model, _ = build_backbone(SMALL, file)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(n.startswith(tuple(f"body.features.{i}." for i in range(4))) for n in learning)
    assert "body.features.4.conv.0.0.weight" in learning
    assert "fpn.lateral_convs.0.conv.weight" in learning
    norms = [n for n, m in model.named_modules() if isinstance(m, FrozenBatchNorm)]
    assert norms
    assert not any(n.startswith(f"{norm}.") for n in learning for norm in norms)


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "first"), [(0, "conv1"), (1, "layer2"), (4, None)])
def test_frozen_stages_of_a_resnet(stages, first):
    config = BackboneConfig("resnet50", fpn_channels=8, frozen_stages=stages)
    model = BackboneWithFpn(config, pretrained=True)
    learning = [n for n, p in model.body.named_parameters() if p.requires_grad]
    assert (learning[0].split(".")[0] if learning else None) == first


@pytest.mark.slow
def test_random_weights_warn_once_and_learn_everywhere():
    with pytest.warns(UserWarning, match="random weights") as caught:
        model, origin = build_backbone(SMALL, None, allow_download=False)
    assert len(caught) == 1
    assert origin.kind == "random"
    assert origin.sha256 is None
    assert all(p.requires_grad for p in model.parameters())
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone, batch = model.eval()(image[:1]), model.train()(image)
    for a, b in zip(alone, batch, strict=True):
        torch.testing.assert_close(a, b[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_without_a_network_the_weights_are_random(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.warns(UserWarning, match="no route"):
        _, origin = build_backbone(SMALL, None)
    assert origin.kind == "random"


@pytest.mark.slow
def test_torchvisions_cache_is_used(monkeypatch, network):
    weights = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, **_: dict(network.state_dict()),
    )
    monkeypatch.setattr("sapnet.segmenters.backbones.weights.file_sha256", lambda path: path.name)
    model, origin = build_backbone(SMALL, None)
    assert (origin.kind, origin.detail) == ("torchvision", weights.url)
    assert origin.sha256 == weights.url.rsplit("/", 1)[1]
    assert torch.equal(model.body.features[0][0].weight, network.features[0][0].weight)


@pytest.mark.slow
def test_the_generator_decides_everything_random():
    def build(seed):
        model = BackboneWithFpn(
            SMALL, pretrained=False, generator=torch.Generator().manual_seed(seed)
        )
        return torch.cat([v.flatten() for v in model.state_dict().values()])

    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))


def broken(case, network, path):
    state = dict(network.state_dict())
    if case == "missing":
        del state["features.3.conv.2.weight"]
    elif case == "shape":
        state["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    elif case == "unknown":
        state["features.19.0.weight"] = torch.zeros(3)
    elif case == "detector":
        state = {"state_dict": {"neck.fpn_convs.0.conv.weight": torch.zeros(3)}}
    elif case == "values":
        state = {"epoch": 3}
    torch.save(state, path)
    if case == "text":
        path.write_text("these are no weights")
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif case == "absent":
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing", r"features\.3\.conv\.2\.weight"),
        ("shape", r"another shape \(features\.0\.0\.weight"),
        ("unknown", r"features\.19\.0\.weight"),
        ("detector", r"missing \(features\.0\.0\.weight"),
        ("values", "state dict"),
        ("text", "cannot be read"),
        ("empty", "cannot be read"),
        ("cut", "cannot be read"),
        ("absent", "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit(network, tmp_path, case, says):
    broken(case, network, tmp_path / "weights.pt")
    with pytest.raises(WeightsUnavailable, match=says):
        build_backbone(SMALL, tmp_path / "weights.pt")


@pytest.mark.slow
def test_the_weights_of_another_network_are_named(file):
    with pytest.raises(WeightsUnavailable, match="conv1"):
        build_backbone(BackboneConfig("resnet50", fpn_channels=8), file)
