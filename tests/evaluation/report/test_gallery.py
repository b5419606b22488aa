"""The panels of one image in gallery.png."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from sapnet.data.masks import encode
from sapnet.evaluation.report.gallery import HEIGHT, panels_of
from sapnet.types import ImageInfo, PointAnnotation


def block(top, bottom):
    mask = np.zeros((HEIGHT, HEIGHT), bool)
    mask[top:bottom] = True
    return encode(mask)


def test_the_largest_proposals_are_drawn_however_confident(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (HEIGHT, HEIGHT), (9, 9, 9)).save(path)
    heights = [4, 30, 6, 32, 34, 36]  # of disjoint bands, the most confident first
    tops = np.cumsum([0, *(height + 2 for height in heights)])
    bands = [(int(top), int(top) + h) for top, h in zip(tops, heights, strict=False)]
    mask = block(*bands[0])
    record = SimpleNamespace(
        path=path,
        ranges=None,
        info=ImageInfo(1, "a.png", HEIGHT, HEIGHT),
        annotations=(PointAnnotation(5, 1, 1, 219.5, 219.5),),
        bags=(SimpleNamespace(masks=tuple(block(*band) for band in bands)),),
    )
    row = SimpleNamespace(id=5, image_id=1, selected=mask, refined=None, segmentation=mask)
    panels = panels_of(record, [row], [])
    drawn = [bool((panels[1][top:bottom, :100] != 9).any()) for top, bottom in bands]
    assert drawn == [height >= 30 for height in heights]
    assert (panels[2][: heights[0], :100] != 9).any()  # the one that was selected
    assert (panels[3] == 9).all()  # nothing was refined
