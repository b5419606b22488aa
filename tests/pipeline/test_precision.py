"""Mixed precision: where products are bfloat16, and that training with them is training."""

import json
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sapnet.config.resolve import resolve_config
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.backbones.norm import FrozenBatchNorm
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.utils.precision import mixed

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_cpu_computes_in_float32(precision):
    weight = torch.ones(2, 2)
    with mixed(CPU, precision):
        assert (weight @ weight).dtype == torch.float32


def test_products_are_bfloat16_where_it_is_asked_for():
    weight = torch.ones(2, 2)
    with mixed(CPU, "bfloat16"):
        assert (weight @ weight).dtype == torch.bfloat16
        assert weight.softmax(0).dtype == torch.float32


@pytest.mark.parametrize(("real", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_decides_by_what_it_multiplies(monkeypatch, real, precision):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_asked: real)
    monkeypatch.setattr("torch.autocast", lambda kind, dtype: (kind, dtype))
    found = mixed(torch.device("cuda"), "auto")
    assert (found == ("cuda", torch.bfloat16)) is (precision == torch.bfloat16)


def test_frozen_norms_keep_their_statistics(generator):
    """In bfloat16 a scale of 1.003 would be 1."""
    norm = FrozenBatchNorm(3)
    norm.weight.data[:] = torch.tensor([1.003, 0.7, 2.0])
    norm.running_mean[:] = torch.tensor([0.1, 5.0, -3.0])
    x = torch.randn(2, 3, 4, 4, generator=generator)
    out = norm(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x.bfloat16().float()), rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("norms", ["bfloat16, as on a CPU", "float32, as on a GPU"])
def test_a_run_in_bfloat16(make_spec, tmp_path, go, finished, monkeypatch, norms):
    """The same losses up to its rounding; its checkpoint is float32 and predicts anywhere."""
    if norms.startswith("float32"):
        usual = torch.nn.functional.group_norm
        monkeypatch.setattr(
            "torch.nn.functional.group_norm", lambda x, *rest: usual(x.float(), *rest)
        )
    spec = make_spec(tmp_path)
    outcome = go(replace(spec, overrides={**spec.overrides, "train.precision": "bfloat16"}))
    assert outcome.error is None
    first, expected = outcome.steps[1], finished.steps[1]
    assert first == pytest.approx(expected, rel=0.05, abs=0.02)
    assert first != expected
    state = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)
    assert {v.dtype for v in state["model"].values() if v.is_floating_point()} == {torch.float32}
    rows = (tmp_path / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    assert len(rows) == len(json.loads(spec.points.read_text())["annotations"])
    predictor = load_predictor(tmp_path / "result" / "model.pt")
    assert predictor.config.train.precision == "bfloat16"
    predictor.predict(torch.zeros(64, 96, 3, dtype=torch.uint8).numpy())


@pytest.mark.slow
def test_on_a_gpu_types_meet():
    """Types as a GPU's mixed precision has them, which differ from a CPU's: norms in float32."""
    config = resolve_config("sapnet++", "cpu")
    before = torch.is_autocast_enabled("cuda")
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        model = SoloV2(backbone, SoloHead(3, 64, config.solo))
        images = torch.empty(2, 3, 128, 192)
        torch.set_autocast_enabled("cuda", True)  # torch.autocast itself asks for a real one
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            _, output = model(images)
        finally:
            torch.set_autocast_enabled("cuda", before)
    assert output.kernels[0].dtype == torch.bfloat16
    assert output.mask_features.dtype == torch.float32
    assert output.flat_kernels().dtype == output.mask_features.dtype
