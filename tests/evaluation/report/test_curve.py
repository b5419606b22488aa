"""The curve of the losses: of bounded length, and the same after a break."""

import pytest

from sapnet.evaluation.report.loss_curve import MOST, LossHistory


def drawn(path, steps, of):
    curve = LossHistory(path)
    for step in steps:
        curve.add(step, of, {"a": float(step), "b": 1.0})
    return curve


def test_a_short_training_is_kept_as_it_is(tmp_path):
    curve = drawn(tmp_path / "losses.json", range(1, 8), 7)
    assert curve.means() == [{"step": s, "losses": {"a": s, "b": 1}} for s in range(1, 8)]
    assert LossHistory(tmp_path / "losses.json").means() == curve.means()


@pytest.mark.slow
@pytest.mark.parametrize("of", [MOST, MOST + 1, 1000, 4801])
def test_a_long_one_by_means_of_its_parts(tmp_path, of):
    means = drawn(tmp_path / "losses.json", range(1, of + 1), of).means()
    parts = {}
    for step in range(1, of + 1):
        parts.setdefault((step - 1) * MOST // of, []).append(step)
    assert [m["step"] for m in means] == [max(p) for p in parts.values()]
    assert [m["losses"]["a"] for m in means] == [
        pytest.approx(sum(p) / len(p), abs=1e-4) for p in parts.values()
    ]
    assert len(means) == MOST


@pytest.mark.slow
def test_a_resumed_one_goes_on(tmp_path):
    whole = drawn(tmp_path / "whole.json", range(1, 201), 200).means()
    drawn(tmp_path / "losses.json", range(1, 131), 200)
    # the checkpoint was older than the last point
    assert drawn(tmp_path / "losses.json", range(101, 201), 200).means() == whole


@pytest.mark.slow
def test_resumed_inside_a_part(tmp_path):
    drawn(tmp_path / "losses.json", range(1, 1001), 2400)
    means = drawn(tmp_path / "losses.json", range(996, 2401), 2400).means()
    assert len(means) == MOST
    assert means[99]["losses"]["a"] == pytest.approx((996 + 1000) / 2)


@pytest.mark.slow
def test_a_new_batch_size_counts_in_the_steps_of_the_end(tmp_path):
    curve = drawn(tmp_path / "losses.json", range(1, 51), 100)
    for step in range(101, 201):
        curve.add(step, 200, {"a": 0.0})
    means = curve.means()
    assert [m["step"] for m in means][:3] == [2, 4, 6]
    assert means[-1]["step"] == 200
    assert len(means) == 150


def test_none_yet(tmp_path):
    assert LossHistory(tmp_path / "losses.json").means() == []
