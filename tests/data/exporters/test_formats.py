"""Each format as the programs that it is for read it."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision
import yaml
from cvat_sdk.masks import decode_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection, VOCSegmentation

from sapnet.data.annotations.coco import read_points, read_truth
from sapnet.data.exporters import FORMATS, Instance, Options, UnsupportedFormat, export
from sapnet.data.exporters.cvat import row_runs
from sapnet.data.exporters.label_studio import packed
from sapnet.types import Category, ImageInfo

Run = Callable[..., Any]
BYTES = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(lambda s: arrays(bool, s))


def flat(source: Any) -> dict[int, np.ndarray]:
    """Annotation id -> mask."""
    return {10 * i + n: m for i, masks in source.masks.items() for n, m in enumerate(masks)}


def test_coco_keeps_every_byte(scene: Any, exported: Run) -> None:
    made = exported(scene, "coco")
    document = json.loads(made.path.read_bytes())
    written = {a["id"]: a["segmentation"] for a in document["annotations"]}
    masks = [i for image in scene.images for i in scene.instances(image)]
    assert written == {i.id: i.segmentation for i in masks}
    assert [i["id"] for i in document["images"]] == [3, 1, 8]
    coco = COCO(made.path)
    for id_, mask in flat(scene).items():
        assert (coco.annToMask(coco.anns[id_]) == mask).all()
        assert coco.anns[id_]["area"] == mask.sum()
    assert made.report["round_trip"] == {"mean_iou": 1.0, "worst": []}


def test_coco_is_a_dataset_with_ground_truth_again(scene: Any, exported: Run) -> None:
    path = exported(scene, "coco").path
    document = read_points(path)
    assert not document.issues
    assert document.has_truth
    truth = read_truth(path.read_bytes())
    assert {a["id"]: a["segmentation"] for a in truth["annotations"]} == {
        i.id: i.segmentation for image in scene.images for i in scene.instances(image)
    }


def test_coco_polygons_give_the_masks_back(scene: Any, exported: Run) -> None:
    made = exported(scene, "coco-polygons")
    coco = COCO(made.path)
    for id_, mask in flat(scene).items():
        assert (coco.annToMask(coco.anns[id_]) == mask).all()
    assert len(coco.anns[31]["segmentation"]) == 3  # its parts
    assert made.report["round_trip"] == {"mean_iou": 1.0, "worst": []}
    assert "slit" in made.report["notes"][0]


def test_what_simplifying_costs_is_told(scene: Any, exported: Run) -> None:
    made = exported(scene, "coco-polygons", simplify=3)
    coco, trip = COCO(made.path), made.report["round_trip"]
    seen = {}
    for id_, mask in flat(scene).items():
        back = coco.annToMask(coco.anns[id_]).astype(bool)
        seen[id_] = (back & mask).sum() / (back | mask).sum()
    assert trip["mean_iou"] == pytest.approx(np.mean(list(seen.values())))
    assert trip["mean_iou"] < 1
    told = [(w["id"], w["iou"]) for w in trip["worst"]]
    worst = sorted((iou, id_) for id_, iou in seen.items() if iou < 1)
    assert [iou for _, iou in told] == pytest.approx([iou for iou, _ in worst], abs=1e-6)


def test_yolo_as_supervision_and_opencv_read_it(scene: Any, exported: Run, tmp_path: Path) -> None:
    scene.folder = tmp_path
    made = exported(scene, "yolo-seg", images=True)
    folder = made.unpacked()
    found = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(folder / "images/train"),
        annotations_directory_path=str(folder / "labels/train"),
        data_yaml_path=str(folder / "data.yaml"),
    )
    assert found.classes == ["Kerne, groß", 'a <cell> & "co"']
    told = {w["id"]: w["iou"] for w in made.report["round_trip"]["worst"]}
    ids = iter([10, 11, 30, 31, 32])
    for path, _, seen in sorted(found, key=lambda entry: Path(entry[0]).name):
        for mask, label in zip(seen.mask if len(seen) else [], seen.class_id, strict=True):
            id_ = next(ids)
            truth = flat(scene)[id_]
            iou = (mask & truth).sum() / (mask | truth).sum()
            assert iou == pytest.approx(told.get(id_, 1.0), abs=0.02), (path, id_)
            assert label == (1, 0)[id_ % 10 % 2]
    assert next(ids, None) is None
    assert set(told) == {31}  # the one whose parts are joined


def test_yolo_cut_to_whole_pixels(scene: Any, exported: Run) -> None:
    """As the other half of the family does it, which rounds nothing."""
    made = exported(scene, "yolo-seg")
    lines = made.read("labels/train/3.txt").decode().splitlines()
    for line, mask in zip(lines, scene.masks[3], strict=True):
        points = np.array(line.split()[1:], float).reshape(-1, 2) * mask.shape[::-1]
        pixels = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(pixels, [points.astype(np.int32)], 1)
        if mask is not scene.masks[3][1]:
            assert (pixels == mask).all()
    assert made.read("labels/train/8.txt") == b""
    told = yaml.safe_load(made.read("data.yaml"))
    assert told["names"] == {0: "Kerne, groß", 1: 'a <cell> & "co"'}


def test_voc_as_torchvision_reads_it(scene: Any, exported: Run, tmp_path: Path) -> None:
    scene.folder = tmp_path
    scene.names = {3: "c.jpg", 1: "a.jpg", 8: "b.jpg"}
    made = exported(scene, "voc", images=True)
    root = made.unpacked()
    (root / "VOCdevkit").mkdir()
    (root / "VOCdevkit/VOC2012").symlink_to(root)
    classes, objects = (
        VOCSegmentation(root, image_set="train"),
        VOCDetection(root, image_set="train"),
    )
    assert len(classes) == len(objects) == 3
    for index, image in enumerate(scene.images):
        masks = scene.masks[image.id]
        labels = np.array(classes[index][1])
        annotation = objects[index][1]["annotation"]
        assert int(annotation["size"]["width"]) == image.width
        for mask, told in zip(masks, annotation.get("object", []), strict=True):
            rows, columns = np.nonzero(mask)
            box = {name: int(value) for name, value in told["bndbox"].items()}
            assert (box["xmin"], box["ymax"]) == (columns.min() + 1, rows.max() + 1)
        assert set(np.unique(labels)) <= {0, 1, 2}
    pixels = made.array("SegmentationObject/c.png")
    assert all((pixels == n).sum() == m.sum() for n, m in enumerate(scene.masks[3], 1))
    assert "background:0,0,0::" in made.read("labelmap.txt").decode()


def test_png_has_a_number_for_each(scene: Any, exported: Run) -> None:
    made = exported(scene, "png")
    legend = json.loads(made.read("legend.json"))
    assert [i["masks"] for i in legend["images"]] == ["masks/3.png", "masks/1.png", "masks/8.png"]
    for listed in legend["images"][:1] + legend["images"][2:]:
        pixels = made.array(listed["masks"])
        assert pixels.dtype == np.uint16
        for instance in listed["instances"]:
            assert ((pixels == instance["value"]) == flat(scene)[instance["id"]]).all()


@pytest.mark.parametrize("format", ["png", "voc"])
@pytest.mark.parametrize("better", [10, 11])
def test_where_two_overlap_the_better_one_wins(
    memory: Any, exported: Run, format: str, better: int
) -> None:
    one, other = np.zeros((2, 9, 9), bool)
    one[:6], other[4:] = True, True
    made = exported(
        memory({1: [one, other]}, quality=lambda id_: 0.9 if id_ == better else 0.2), format
    )
    pixels = made.array({"png": "masks/1.png", "voc": "SegmentationObject/1.png"}[format])
    assert ((pixels == better - 9) == (one, other)[better - 10]).all()
    worst = made.report["round_trip"]["worst"]
    assert [(w["id"], w["iou"]) for w in worst] == [
        (21 - better, pytest.approx(4 / 6 if better == 11 else 3 / 5, abs=1e-5))
    ]


def test_an_image_with_too_many_objects_is_left_out(memory: Any, exported: Run) -> None:
    dots = np.zeros((255, 20, 20), bool)
    dots.reshape(255, -1)[np.arange(255), np.arange(255)] = True
    made = exported(memory({2: list(dots), 1: [np.ones((3, 3), bool)]}), "voc")
    assert (made.report["masks"], made.report["left_out_count"]) == (1, 255)
    assert "room for 254" in made.report["left_out"][0]["why"]
    assert "SegmentationObject/2.png" not in made.names()
    assert made.read("ImageSets/Segmentation/train.txt") == b"1\n"


def test_more_classes_than_voc_holds(memory: Any, tmp_path: Path) -> None:
    source = memory({}, categories=[Category(i, f"c{i}") for i in range(255)])
    with pytest.raises(UnsupportedFormat, match="254 classes"):
        export(source, "voc", tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] in ([], ["x"])


def test_cvat_as_its_sdk_reads_it(scene: Any, exported: Run) -> None:
    root = ElementTree.parse(exported(scene, "cvat").path).getroot()
    assert root.findtext("version") == "1.1"
    labels = [e.text for e in root.iterfind("meta/task/labels/label/name")]
    assert labels == ["Kerne, groß", 'a <cell> & "co"']
    images = root.findall("image")
    assert [i.get("name") for i in images] == ["3.png", "1.png", "8.png"]
    for image, masks in zip(images, scene.masks.values(), strict=True):
        size = {"image_width": int(image.get("width")), "image_height": int(image.get("height"))}
        for element, mask in zip(image.findall("mask"), masks, strict=True):
            left, top, width, height = (
                int(element.get(n)) for n in ("left", "top", "width", "height")
            )
            runs = [int(run) for run in element.get("rle").split(",")]
            box = [left, top, left + width - 1, top + height - 1]
            assert (decode_mask(runs + box, **size) == mask).all()
            assert element.get("label") in labels


def unpack(code: list[int]) -> np.ndarray:
    """rle-pack's decoder, written down as its source has it, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        run = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if run else [read(word) for _ in range(length)]
    return np.array(out, np.uint8)


def test_label_studio_tasks(scene: Any, exported: Run) -> None:
    scene.names = {3: "a b/3.png"}
    made = exported(scene, "label-studio")
    tasks = json.loads(made.read("tasks.json"))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=images/a%20b/3.png"
    for task, image in zip(tasks, scene.images, strict=True):
        (prediction,) = task["predictions"]
        for result, mask in zip(prediction["result"], scene.masks[image.id], strict=True):
            assert (result["type"], result["value"]["format"]) == ("brushlabels", "rle")
            assert (result["original_width"], result["original_height"]) == mask.shape[::-1]
            back = unpack(result["value"]["rle"]).reshape(*mask.shape, 4)
            assert (back == 255 * mask[..., None]).all()
    config = ElementTree.fromstring(made.read("label_config.xml"))
    assert [e.get("value") for e in config.iter("Label")] == ["Kerne, groß", 'a <cell> & "co"']
    assert {e.get("name") for e in config} == {"image", "tag"}


@pytest.mark.slow
@given(BYTES)
@settings(max_examples=100)
def test_label_studios_code_of_any_runs(mask: np.ndarray) -> None:
    assert (unpack(list(packed(row_runs(mask)))).reshape(*mask.shape, 4)[..., 0] > 0).tolist() == (
        mask.tolist()
    )


def test_label_studios_code_of_long_runs() -> None:
    """Runs of more than 65,536 values, of 16,384 pixels, are cut."""
    runs = [20_000, 16_384, 16_385, 1, 70_000]
    want = np.repeat(np.arange(len(runs)) % 2 * 255, 4 * np.array(runs))
    assert (unpack(list(packed(runs))) == want).all()


def test_files_of_one_stem_are_told_apart(memory: Any, exported: Run) -> None:
    masks = {i: [np.ones((2, 2), bool)] for i in (1, 2, 3, 4)}
    names = {1: "x/a.png", 2: "x/a.jpg", 3: "X/A.tif", 4: "b.v2.png"}
    made = exported(memory(masks, names=names), "yolo-seg")
    labels = sorted(n for n in made.names() if n.startswith("labels/"))
    assert labels == [
        "labels/train/X/A_tif.txt",
        "labels/train/b.v2.txt",
        "labels/train/x/a_jpg.txt",
        "labels/train/x/a_png.txt",
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_masks_make_the_same_file(scene: Any, exported: Run, format: str) -> None:
    one = exported(scene, format).path.read_bytes()
    assert exported(scene, format).path.read_bytes() == one


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_at_all(memory: Any, exported: Run, format: str) -> None:
    report = exported(memory({}), format).report
    assert report["masks"] == 0
    assert report["round_trip"] == {"mean_iou": None, "worst": []}


@pytest.mark.parametrize("format", FORMATS)
def test_an_images_masks_are_asked_for_when_it_comes(
    scene: Any, tmp_path: Path, format: str
) -> None:
    seen: list[tuple[int, int, int]] = []

    def progress(done: int, of: int) -> None:
        seen.append((done, of, scene.read))

    export(scene, format, tmp_path / "x", Options(), progress)
    assert seen == [(0, 3, 0), (1, 3, 3), (2, 3, 5), (3, 3, 5)]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_class_that_is_not_there(memory: Any, exported: Run) -> None:
    class Odd(memory):  # type: ignore[misc]
        def instances(self, image: ImageInfo) -> Any:
            for instance in super().instances(image):
                yield Instance(instance.id, 99, instance.segmentation, 0.5)

    made = exported(Odd({1: [np.ones((2, 2), bool)]}), "coco")
    assert made.report["left_out"] == [
        {"id": 10, "image_id": 1, "why": "there is no category with id 99"}
    ]
