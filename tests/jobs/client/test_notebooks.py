"""Masks as arrays, tables and previews, with pandas and supervision themselves, and in a kernel."""

import asyncio
import base64
import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import supervision
from PIL import Image, ImageOps

from sapnet_client import AsyncClient, Client, Progress
from sapnet_client.progress import Bars, NotebookBars, progress_html, wanted
from sapnet_client.types import Job, Mask, Prediction, Segmentation
from sapnet_client.views import to_numpy, to_pandas, to_supervision

Photos = tuple[Path, Path]


def mask_of(**changes: Any) -> Mask:
    array = np.zeros((30, 40), bool)
    array[5:15, 8:30] = True
    fields = {"segmentation": Segmentation.of(array), "bbox": [8, 5, 22, 10], "area": 220.0}
    fields |= {"id": 3, "image_id": 1, "category_id": 7, "quality": 0.75, "source": "refined"}
    return Mask(**{**fields, **changes})


def previews(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_masks_for_supervision() -> None:
    found = mask_of().to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy.tolist() == [[8, 5, 30, 15]]
    assert found.mask is not None
    assert found.mask.shape == (1, 30, 40)
    assert found.mask.sum() == 220
    assert found.confidence.tolist() == [0.75]
    assert found.data["id"].tolist() == [3]
    both = to_supervision([mask_of(), mask_of(id=4)], {7: "cell"})
    assert both.data["class_name"].tolist() == ["cell", "cell"]
    predicted = Prediction(
        category_id=7, segmentation=mask_of().segmentation, bbox=[8, 5, 22, 10], score=0.5
    )
    assert predicted.to_supervision().confidence.tolist() == [0.5]
    assert len(to_supervision([])) == 0
    annotated = supervision.MaskAnnotator().annotate(np.zeros((30, 40, 3), np.uint8), found)
    assert annotated[10, 10].any()
    assert not annotated[0, 0].any()


def test_masks_of_different_images_are_no_array() -> None:
    other = Segmentation.of(np.ones((4, 5), bool))
    with pytest.raises(ValueError, match="different sizes"):
        to_numpy([mask_of(), mask_of(segmentation=other)])
    assert to_numpy([]).shape == (0, 0, 0)


def test_tables() -> None:
    frame = to_pandas([mask_of(), mask_of(id=4, point=[9.0, 6.5])], {7: "cell"})
    assert frame["id"].tolist() == [3, 4]
    assert frame["category"].tolist() == ["cell", "cell"]
    assert frame[["x", "y", "width", "height"]].iloc[0].tolist() == [8, 5, 22, 10]
    assert frame["point_x"].iloc[1] == 9.0
    assert not {"segmentation", "bbox", "candidates"} & set(frame.columns)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "supervision", "fiftyone"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'sapnet-service\[notebook\]'"):
        to_pandas([mask_of()])
    with pytest.raises(ImportError, match=r"pip install 'sapnet-service\[notebook\]'"):
        mask_of().to_supervision()


def test_a_mask_without_a_client_is_drawn_all_the_same() -> None:
    html = mask_of(status="<b>open")._repr_html_()
    (preview,) = previews(html)
    assert max(preview.size) == 320
    assert "quality 0.75" in html
    assert "&lt;b&gt;open" in html
    assert "<b>open" not in html
    broken = mask_of(segmentation=Segmentation(size=[3, 4], counts="~"))._repr_html_()
    assert previews(broken) == []
    with pytest.raises(ValueError, match="did not come from a client"):
        Job(id="a", state="queued").to_pandas()
    assert "queued" in Job(id="a", state="queued")._repr_html_()


@pytest.mark.slow
def test_files_for_fiftyone_are_shown_as_masks_have_them(
    client: Client, photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FiftyOne turns an image by its EXIF orientation; `test_fiftyone.py` has its own samples."""

    class Fields(dict[str, Any]):
        def __init__(self, **fields: Any) -> None:
            super().__init__(fields)

    kinds = ("Sample", "ImageMetadata", "Detection", "Detections", "Keypoint", "Keypoints")
    stand_in = SimpleNamespace(**dict.fromkeys(kinds, Fields))
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)  # type: ignore[arg-type]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photos[0] / "a.png") as photo:
        photo.save(photos[0] / "a.png", exif=exif)
    job = client.wait(client.train(client.create_dataset(*photos), preset="demo"))
    samples = list(client.fiftyone_samples(job, tmp_path / "shown"))
    assert len(samples) == 3
    for sample in samples:
        with Image.open(sample["filepath"]) as shown:
            size = sample["metadata"]["width"], sample["metadata"]["height"]
            assert ImageOps.exif_transpose(shown).size == shown.size == size
        assert sample["masks"]["detections"]


def test_bars_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython's own way of showing and changing things stands in for itself."""
    shown: list[str] = []

    class Handle:
        def update(self, thing: str) -> None:
            shown.append(thing)

    def display(thing: str, display_id: bool = False) -> Handle:
        shown.append(thing)
        return Handle()

    ipython, displays = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    displays.HTML, displays.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    bars = wanted(None)
    assert isinstance(bars, NotebookBars)
    for done in (0.0, 0.5, 0.5, 1.0):
        bars(Progress("job <1>", done, 1.0, "train", "mil 0.20", over=done == 1.0))
    assert len(shown) == 3
    assert "50% job &lt;1&gt; · train · mil 0.20" in shown[1]
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    assert isinstance(wanted(True), Bars)
    assert progress_html(Progress("x", 1, 0)).endswith("0% x")


@pytest.mark.slow
def test_a_job_in_a_notebook(client: Client, photos: Photos) -> None:
    job = client.wait(client.train(client.create_dataset(*photos), preset="demo"))
    frame = job.to_pandas()
    assert frame["category"].unique().tolist() == ["cell"]
    assert sorted(frame["id"]) == [10, 11, 20, 21, 30, 31]
    assert job.to_numpy(1).shape == (2, 30, 40)
    detections = job.to_supervision(2)
    assert detections.data["class_name"].tolist() == ["cell", "cell"]
    assert base64.b64encode(client.gallery(job)).decode() in job._repr_html_()
    masks = list(client.pseudo_masks(job, image_id=2))
    (drawn,) = previews(masks[0]._repr_html_())
    plain = previews(mask_of(segmentation=masks[0].segmentation, bbox=masks[0].bbox)._repr_html_())
    assert drawn.size == plain[0].size
    assert drawn.tobytes() != plain[0].tobytes()  # on its image
    (worst, *_) = client.review(job)
    assert previews(worst._repr_html_())

    async def also() -> Any:
        async with AsyncClient(client.url, progress=False) as other:
            again = await other.job(job.id)
            html = again._repr_html_()
            return await again.to_pandas(), await again.to_supervision(2), html

    table, found, html = asyncio.run(also())
    assert table.equals(frame)
    assert found.xyxy.tolist() == detections.xyxy.tolist()
    assert previews(html) == []  # nothing can be asked for while it is shown
