"""Models from outside: what is taken, as what, and what is refused before it is built."""

import io
import json
import pickle
import random
import struct
import zipfile
from argparse import Namespace
from dataclasses import replace

import pytest
import safetensors.torch
import torch
import torchvision

from sapnet.config.presets import light_r18
from sapnet.errors import WeightsUnavailable
from sapnet.proposals.prompter.weights import lite0_path
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn, build_backbone
from sapnet.segmenters.checkpoint import load_predictor, save_artifact
from sapnet.segmenters.importing import import_model, read_model
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet import export_mmdet
from sapnet.segmenters.solov2.mmdet_keys import to_mmdet_state_dict
from sapnet.utils.tensor_file import check

CATEGORIES = [{"id": 3, "name": "cell"}, {"id": 9, "name": "nucleus"}]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tests run beside each other: threads of their own would only make them wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config():
    base = light_r18()
    solo = replace(base.solo, channels=32, mask_channels=16, mask_feature_channels=16)
    return replace(base, solo=solo, backbone=BackboneConfig("resnet18", fpn_channels=16))


@pytest.fixture(scope="module")
def segmenter(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        return SoloV2(backbone, SoloHead(2, 16, config.solo))


@pytest.fixture(scope="module")
def ours(config, segmenter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    weights = {"kind": "file", "detail": "-", "sha256": None, "model": None}
    meta = {"categories": CATEGORIES, "config": config.to_dict(), "weights": weights}
    save_artifact(folder, segmenter, {**meta, "seed": 4, "pixel_ranges": {"integer": [0, 900]}})
    return folder


def same(state, segmenter):
    own = segmenter.state_dict()
    return list(state) == list(own) and all(torch.equal(state[key], own[key]) for key in own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_our_own_file_is_the_same_model(ours, segmenter, name):
    model = read_model(ours / name)
    assert same(model.state, segmenter)
    assert model.meta["categories"] == CATEGORIES
    assert model.meta["pixel_ranges"] == {"integer": [0, 900]}
    assert (model.meta["seed"], model.meta["weights"]["detail"]) == (4, "-")


@pytest.mark.slow
def test_mmdetections_published_file_goes_in_and_out(segmenter, tmp_path):
    """In the form of torch before 1.6, which its `publish_model.py` writes."""
    content = {
        "meta": {"dataset_meta": {"classes": ("person", "traffic light")}, "epoch": 36},
        "state_dict": to_mmdet_state_dict(segmenter),
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    meta = import_model(tmp_path / "a.pth", tmp_path / "out", "solov2_light-0123abcd.pth")
    assert [c["name"] for c in meta["categories"]] == ["person", "traffic light"]
    assert meta["weights"]["detail"] == "solov2_light-0123abcd.pth"
    export_mmdet(tmp_path / "out" / "model.pt", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(back[key], value) for key, value in content["state_dict"].items())
    again = read_model(tmp_path / "back.pth")
    assert again.meta["categories"] == meta["categories"]
    assert same(again.state, segmenter)


@pytest.mark.slow
def test_safetensors_of_another_tool_in_mmdetections_layout(segmenter, tmp_path):
    file = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(to_mmdet_state_dict(segmenter), file)
    model = read_model(file)
    assert same(model.state, segmenter)
    assert [c["name"] for c in model.meta["categories"]] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_backbone_is_to_go_on_from_alone(name, tmp_path):
    with torch.random.fork_rng(devices=[]):
        net = getattr(torchvision.models, name)(weights=None)
    torch.save(net.half().state_dict(), tmp_path / "net.pth")
    meta = import_model(tmp_path / "net.pth", tmp_path / "out")
    assert (meta["part"], meta["categories"]) == ("body", [])
    assert meta["config"]["backbone"]["name"] == name
    model = read_model(tmp_path / "out" / "model.safetensors")
    assert model.meta["config"]["backbone"]["name"] == name
    weights = dict(net.named_parameters())
    for key, value in model.state.items():
        if key.removeprefix("backbone.body.") in weights:
            assert torch.equal(value, weights[key.removeprefix("backbone.body.")].float())
    with pytest.raises(WeightsUnavailable, match="a backbone alone"):
        load_predictor(tmp_path / "out" / "model.pt", device="cpu")


@pytest.mark.slow
def test_the_data_packages_file_is_a_backbone_too(tmp_path):
    meta = import_model(lite0_path(), tmp_path / "out")
    assert (meta["part"], meta["config"]["backbone"]["name"]) == ("body", "efficientnet_lite0")
    installed, _ = build_backbone(BackboneConfig("efficientnet_lite0"))
    model = read_model(tmp_path / "out" / "model.safetensors")
    for key, value in installed.body.state_dict().items():
        assert torch.equal(model.state[f"backbone.body.{key}"], value)

    state = torch.load(lite0_path(), weights_only=True)
    del state["_blocks.3._bn1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises((ValueError, WeightsUnavailable)):
        import_model(tmp_path / "part.pth", tmp_path / "other")


class Hostile:
    """Would run a command where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def written(content, legacy=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zip_of(data, pickled, method=zipfile.ZIP_STORED):
    """A file of torch with another data.pkl."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", method) as target:
        for info in source.infolist():
            inside = source.read(info)
            target.writestr(info.filename, pickled if info.filename.endswith("pkl") else inside)
    return out.getvalue()


def claiming(numel, shape):
    """A pickle as torch writes it, of one tensor that claims what is not there."""

    class Claim:
        def __reduce__(self):
            arguments = (STORAGE, 0, shape, (0,) * len(shape), False, {})
            return torch._utils._rebuild_tensor_v2, arguments

    STORAGE = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            found = ("storage", torch.FloatStorage, "0", "cpu", numel)
            return found if value is STORAGE else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"layer3.0.conv1.weight": Claim()})
    return out.getvalue()


def hostile(case, marker):
    small = {"w": torch.ones(4)}
    good, old = written(small), written(small, legacy=True)
    memo = b"\x80\x02]r" + struct.pack("<I", 0x7FFFFFFF) + b"."
    match case:
        case "pickle":
            return pickle.dumps(Hostile(marker))
        case "zip that calls":
            return zip_of(good, pickle.dumps({"state_dict": Hostile(marker)}, protocol=2))
        case "old that calls":
            return written({"state_dict": small, "meta": Hostile(marker)}, legacy=True)
        case "objects":
            return written({"state_dict": small, "meta": Namespace(x=1)})
        case "cut":
            return good[: len(good) // 2]
        case "old, cut":
            return old[:-3]
        case "compressed":
            return zip_of(good, b"\x80\x02}.", zipfile.ZIP_DEFLATED)
        case "claims values":
            return zip_of(good, claiming(10**10, (10**10,)))
        case "claims a shape":
            return zip_of(good, claiming(4, (10**5, 10**5)))
        case "memo":
            return zip_of(good, memo)
        case "steps":
            return zip_of(good, b"\x80\x02](" + b"]" * 250_000 + b"e.")
        case "header":
            return struct.pack("<Q", 1 << 40) + b"{" + b" " * 50
        case "empty":
            return b""
        case _:
            return b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("pickle", "torch did not write|only tensors"),
        ("zip that calls", r"open.*only tensors and plain values"),
        ("old that calls", r"open.*only tensors and plain values"),
        ("objects", r"argparse\.Namespace"),
        ("cut", "cut off"),
        ("old, cut", "3 bytes of it are missing"),
        ("compressed", "compressed"),
        ("claims values", "not all there"),
        ("claims a shape", r"claims the shape \(100000, 100000\)"),
        ("memo", "steps"),
        pytest.param("steps", "steps", marks=pytest.mark.slow),
        ("header", "header claims"),
        ("empty", "neither of torch nor of safetensors"),
        ("image", "neither of torch nor of safetensors"),
    ],
)
def test_a_hostile_file_is_refused_before_torch_reads_it(case, says, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "bad.pth"
    path.write_bytes(hostile(case, marker))
    with pytest.raises(ValueError, match=says):
        check(path)
    with pytest.raises(WeightsUnavailable, match=rf"bad\.pth was not taken: .*({says})"):
        import_model(path, tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_damage_anywhere_is_refused_as_such(tmp_path):
    """Or does not show: nothing else is raised, whatever byte is another."""
    rng, path, refused = random.Random(3), tmp_path / "bad.pth", 0
    for legacy in (False, True):
        good = written({"state_dict": {"w": torch.ones(4)}, "meta": {"a": 1.5}}, legacy)
        for _ in range(60):
            data = bytearray(good)
            for _ in range(4):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(data)
            try:
                check(path)
            except ValueError:
                refused += 1
    assert refused > 60


def test_a_large_sparse_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "sparse.pth"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(WeightsUnavailable, match="10,737,418,240 bytes"):
        read_model(path)
    with pytest.raises(WeightsUnavailable, match="No such file"):
        read_model(tmp_path / "absent.pth")


def changed(ours, **settings):
    content = torch.load(ours / "model.pt", weights_only=True)
    meta = json.loads(content["meta"])
    for name, value in settings.items():
        if "__" in name:
            stage, setting = name.split("__")
            meta["config"][stage][setting] = value
        else:
            meta[name] = value
    return {"state_dict": content["state_dict"], "meta": json.dumps(meta)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"solo__channels": 64}, "of another shape"),
        ({"solo__stacked_convs": 3}, "missing"),
        ({"solo__stacked_convs": 10**9}, r"solo\.stacked_convs must be at most 16"),
        ({"data__short_sides": [10**7]}, r"data\.short_sides must be at most 4,096"),
        ({"solo__num_grids": [10**6] * 5}, "num_grids must be at most 200"),
        ({"solo__channels": 0}, r"solo\.channels must be above 0"),
        ({"categories": [{"id": 1, "name": "a"}]}, "of another shape"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "told apart"),
        ({"categories": [{"id": 2**70, "name": "a"}, {"id": 2, "name": "b"}]}, "the id of a class"),
        ({"weights": {"kind": "stolen", "detail": "x"}}, "origin of its weights"),
        ({"config": 3}, "settings are damaged"),
        ({"pixel_ranges": {"integer": [0]}}, "ranges of pixel values"),
        ({"seed": "one"}, "whole numbers"),
    ],
)
def test_what_a_file_of_ours_claims_is_checked(ours, settings, says, tmp_path):
    torch.save(changed(ours, **settings), tmp_path / "m.pt")
    with pytest.raises(WeightsUnavailable, match=says):
        import_model(tmp_path / "m.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("mask_head.conv_cls.bias", torch.zeros(5), "of another shape"),
        ("neck.lateral_convs.0.conv.bias", torch.full((16,), torch.nan), "not finite"),
        ("mask_head.extra", torch.zeros(1), "unknown"),
        ("rpn_head.weight", torch.zeros(1), "no such key"),
        ("mask_head.conv_kernel.weight", torch.zeros(16), "was not taken"),
    ],
)
def test_tensors_that_do_not_fit(segmenter, key, value, says, tmp_path):
    state = {**to_mmdet_state_dict(segmenter), key: value}
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    with pytest.raises(WeightsUnavailable, match=says):
        read_model(tmp_path / "m.pth")


def test_what_is_no_model_is_said(tmp_path):
    for content in ({"w": torch.ones(2)}, {"state_dict": {"a": 3}}, [torch.ones(1)]):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(
            WeightsUnavailable, match=r"holds neither|no plain tensor|no state dict"
        ):
            read_model(tmp_path / "m.pth")
