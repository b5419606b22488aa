"""Masks are read without trust, and no more of them than they cover."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from sapnet.data.exporters import Instance, InvalidMask
from sapnet.data.exporters.source import read_shape
from sapnet.types import ImageInfo

IMAGE = ImageInfo(1, "a.png", 40, 30)


def encoded(mask: np.ndarray) -> Any:
    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode()}


@pytest.mark.slow
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: arrays(bool, s)))
@settings(max_examples=200)
def test_the_box_and_what_is_in_it(mask: np.ndarray) -> None:
    image = ImageInfo(1, "a.png", mask.shape[1], mask.shape[0])
    instance = Instance(1, 2, encoded(mask), 0.5)
    if not mask.any():
        with pytest.raises(InvalidMask, match="empty"):
            read_shape(instance, image)
        return
    shape = read_shape(instance, image)
    whole = np.zeros_like(mask)
    whole[shape.window] = shape.mask
    assert (whole == mask).all()
    assert shape.bbox == coco.toBbox(encoded(mask)).astype(int).tolist()
    assert shape.area == mask.sum()


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ({"size": [40, 30], "counts": "0"}, "size"),
        ({"size": [30, 40], "counts": "¡¡"}, "decoded"),
        ({"size": [30, 40], "counts": "abc"}, "decoded"),
        ({"size": [30, 40], "counts": ""}, "decoded"),
        ({"size": [30, 40], "counts": "1"}, "add up"),
        (encoded(np.zeros((30, 40), bool)), "empty"),
    ],
)
def test_what_is_no_mask(segmentation: Any, why: str) -> None:
    with pytest.raises(InvalidMask, match=why):
        read_shape(Instance(1, 2, segmentation, 0.5), IMAGE)
