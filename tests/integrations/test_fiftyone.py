"""FiftyOne's own samples and labels, which need no database until a dataset holds them.

`pip install fiftyone` goes beside the client, not beside the service (docs/integrations), so where
the service is tested the package is as a rule not there.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

os.environ.setdefault("FIFTYONE_DISABLE_SERVICES", "1")
fo = pytest.importorskip("fiftyone", reason="pip install fiftyone, in an environment of its own")

from sapnet_client.fiftyone import points_document, sample_of  # noqa: E402
from sapnet_client.types import Annotation, Image, Mask, Segmentation  # noqa: E402


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Pillow.new("RGB", (40, 30)).save(path)
    return path


def test_a_sample_of_an_image(photo: Path) -> None:
    array = np.zeros((30, 40), bool)
    array[5:15, 8:28] = True
    array[6, 9] = False
    mask = Mask(
        id=3,
        image_id=1,
        category_id=7,
        segmentation=Segmentation.of(array),
        bbox=[8, 5, 20, 10],
        area=199.0,
        quality=0.75,
        source="refined",
    )
    image = Image(id=1, file_name="a.png", width=40, height=30, subset="val")
    point = Annotation(id=3, image_id=1, category_id=7, point=[10.0, 7.5])
    sample = sample_of(photo, image, [mask], [point], {7: "cell"})
    assert sample.filepath == str(photo)
    assert sample.tags == ["val"]
    (detection,) = sample["masks"].detections
    assert (detection.label, detection.confidence) == ("cell", 0.75)
    assert detection.bounding_box == [0.2, 5 / 30, 0.5, 10 / 30]
    assert detection.annotation_id == 3
    assert (detection.mask == array[5:15, 8:28]).all()
    whole = detection.to_segmentation(frame_size=(40, 30)).mask
    assert ((whole > 0) == array).all()
    (keypoint,) = sample["points"].keypoints
    assert [tuple(point) for point in keypoint.points] == [(0.25, 0.25)]


def test_points_boxes_and_masks_of_samples(photo: Path) -> None:
    def sample(value: Any, *tags: str) -> Any:
        made = fo.Sample(filepath=str(photo), tags=list(tags))
        made["objects"] = value
        return made

    keypoints = fo.Keypoints(
        keypoints=[
            fo.Keypoint(label="cat", points=[(0.25, 0.5)]),
            fo.Keypoint(label="dog", points=[(0.5, 0.5), (float("nan"), float("nan")), (0.6, 0.5)]),
        ]
    )
    box = [0.2, 0.2, 0.5, 0.4]
    detections = fo.Detections(
        detections=[
            fo.Detection(label="dog", bounding_box=box),
            fo.Detection(label="cat", bounding_box=box, mask=np.ones((12, 20), bool)),
        ]
    )
    samples = [sample(keypoints, "x", "train"), sample(detections, "validation"), sample(None)]
    document, files = points_document(samples, "objects")
    assert files == [photo] * 3
    assert [i.get("subset") for i in document["images"]] == ["train", "val", None]
    assert {(i["width"], i["height"]) for i in document["images"]} == {(40, 30)}
    assert [c["name"] for c in document["categories"]] == ["cat", "dog"]
    one, two, three, four = document["annotations"]
    assert one["point"] == [10.0, 15.0]
    assert two["points"] == [[20.0, 15.0], [24.0, 15.0]]
    assert three["bbox"] == pytest.approx([8, 6, 20, 12])
    truth = Segmentation(**four["segmentation"]).array()
    assert truth.sum() == 240
    assert truth[6:18, 8:28].all()


def test_other_fields_are_refused(photo: Path) -> None:
    made = fo.Sample(filepath=str(photo))
    made["kind"] = fo.Classification(label="cat")
    with pytest.raises(ValueError, match="Classification, not Keypoints"):
        points_document([made], "kind")
    made["kind"] = None
    with pytest.raises(ValueError, match="no sample has"):
        points_document([made], "kind")
