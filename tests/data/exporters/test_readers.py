"""Exports with hard names, as programs read them that know no more than their format.

Each image has its id as its colour, and each object that of its class where its mask is; so what a
reader gives is right if the colours under its masks are, and wrong if image, mask and class do not
belong together. Everything is read from another working directory.
"""

import json
import os
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import supervision
import yaml
from cvat_sdk.masks import decode_mask
from PIL import Image
from pycocotools.coco import COCO

from sapnet.data.exporters import FORMATS
from sapnet.types import Category, ImageInfo

Objects = list[tuple[str, np.ndarray]]
Read = Iterator[tuple[np.ndarray, Objects]]
"""An image (h, w, 3) RGB, and the class and the mask (h, w) of each of its objects."""
Reader = Callable[[Path], Read]

CATEGORIES = [
    Category(1, "apple"),
    Category(2, "apple"),
    Category(3, " Apple"),
    Category(4, ""),
    Category(5, "../../etc"),
    Category(6, "a: b"),
    Category(7, "a_ b"),
    Category(8, "no"),
    Category(9, "background"),
    Category(10, "apple_2"),
    Category(11, 'red: "x" & <y>, z'),
    Category(12, "1"),
    Category(13, "never used"),
]
NAMES = {
    1: "images/a.png",
    2: "images/deep/images/a.png",
    3: "a.png",
    4: "photos\\b.png",
    5: "photos/b.png",
    6: "frame_000000",
    7: "clip/frame.000012",
    8: ".hidden/c.png",
    9: "A.PNG",
    10: "x y/ü 100%.png",
    11: "labels/d.png",
    12: "ee:f?.png",
    13: "https://host/images/g.png?sig=1",
    14: "a.tif",
}
HEIGHT, WIDTH = 24, 40


def masks_of(image_id: int) -> dict[int, np.ndarray]:
    """Category id -> mask: two squares, other ones in each image."""
    found = {}
    for number, category in enumerate((image_id % 12 + 1, (5 * image_id + 3) % 12 + 1)):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = 2 + image_id % 5, 3 + 18 * number + image_id % 7
        mask[top : top + 9, left : left + 8] = True
        found[category] = mask
    return found


def pixels_of(image_id: int) -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), (0, 0, 10 * image_id), np.uint8)
    for category, mask in masks_of(image_id).items():
        pixels[mask] = (20 * category, 255, 10 * image_id)
    return pixels


@pytest.fixture
def hard(memory: Any, tmp_path: Path) -> Any:
    class Hard(memory):  # type: ignore[misc]
        def instances(self, image: ImageInfo) -> Any:
            for instance, category in zip(
                super().instances(image), masks_of(image.id), strict=True
            ):
                yield type(instance)(instance.id, category, instance.segmentation, 0.5)

        def file(self, image: ImageInfo) -> Path:
            path = tmp_path / f"{image.id}.bin"
            Image.fromarray(pixels_of(image.id)).save(path, "PNG")
            return path

    masks = {id_: list(masks_of(id_).values()) for id_ in NAMES}
    return Hard(masks, categories=CATEGORIES, names=NAMES)


def rgb(path: Path | str) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None, path
    return np.asarray(image)


def coco_by_pycocotools(root: Path) -> Read:
    coco = COCO(root / "annotations/instances_default.json")
    for id_, image in coco.imgs.items():
        objects = []
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[id_])):
            name = coco.cats[one["category_id"]]["name"]
            assert coco.getCatIds(catNms=[name]) == [one["category_id"]]
            objects.append((name, coco.annToMask(one).astype(bool)))
        yield rgb(root / "images" / image["file_name"]), objects


def by_supervision(dataset: Any) -> Read:
    for path, _, found in dataset:
        names = [dataset.classes[class_id] for class_id in found.class_id]
        yield rgb(path), list(zip(names, found.mask, strict=True)) if len(found) else []


def coco_by_supervision(root: Path) -> Read:
    return by_supervision(
        supervision.DetectionDataset.from_coco(
            str(root / "images"), str(root / "annotations/instances_default.json"), force_masks=True
        )
    )


def yolo_by_ultralytics_rules(root: Path) -> Read:
    """Its documented rules, written down: where folders are, which files, and which label."""
    told = yaml.safe_load((root / "data.yaml").read_text())
    base = Path(told.get("path") or root)
    assert base.is_absolute()
    for split in ("train", "val"):
        assert (base / told[split]).is_dir()
    kinds = {"bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm", "heic"}
    globbed = sorted(
        path
        for path in (base / told["train"]).glob("**/*.*")
        if not any(part.startswith(".") for part in path.relative_to(base).parts)
    )
    images = [str(path) for path in globbed if path.suffix[1:].lower() in kinds]
    assert images
    for path in images:
        label = f"{os.sep}labels{os.sep}".join(path.rsplit(f"{os.sep}images{os.sep}", 1))
        label = label.rsplit(".", 1)[0] + ".txt"
        image, objects = rgb(path), []
        for line in Path(label).read_text().splitlines():
            number, *numbers = line.split()
            shares = np.array(numbers, np.float32).reshape(-1, 2)
            assert len(shares) >= 3
            assert shares.min() >= 0
            assert shares.max() <= 1
            mask = np.zeros(image.shape[:2], np.uint8)
            corners = np.asarray(shares * image.shape[1::-1], np.int32)
            cv2.fillPoly(mask, [corners], 1)
            objects.append((told["names"][int(number)], mask.astype(bool)))
        yield image, objects


def yolo_by_supervision(root: Path) -> Read:
    for folder, _, files in os.walk(root / "images/train"):  # it looks in one folder
        if files:
            labels = Path(folder.replace("/images/", "/labels/"))
            yield from by_supervision(
                supervision.DetectionDataset.from_yolo(
                    folder, str(labels), str(root / "data.yaml"), force_masks=True
                )
            )


def voc_by_its_rules(root: Path) -> Read:
    """The development kit's: lists of stems, colours of the label map, objects by number."""
    lines = (root / "labelmap.txt").read_text().splitlines()[1:]
    colours = {tuple(map(int, line.split(":")[1].split(","))): line.split(":")[0] for line in lines}
    names = list(colours.values())
    assert len(names) == len(set(names))
    assert names[0] == "background"
    for stem in (root / "ImageSets/Segmentation/train.txt").read_text().splitlines():
        (path,) = (root / "JPEGImages").glob(f"{stem}.*")
        with Image.open(root / f"SegmentationObject/{stem}.png") as opened:
            numbers = np.array(opened)
        classes = rgb(root / f"SegmentationClass/{stem}.png")
        annotation = ElementTree.parse(root / f"Annotations/{stem}.xml")
        objects = []
        for number, element in enumerate(annotation.iter("object"), 1):
            mask = numbers == number
            name = colours[tuple(int(value) for value in classes[mask][0])]
            assert element.findtext("name") == name
            objects.append((name, mask))
        yield rgb(path), objects


def voc_by_supervision(root: Path) -> Read:
    """It reads the boxes, and names."""
    for folder, _, files in os.walk(root / "JPEGImages"):
        if files:
            dataset = supervision.DetectionDataset.from_pascal_voc(
                folder, folder.replace("JPEGImages", "Annotations")
            )
            for path, _, found in dataset:
                image, objects = rgb(path), []
                for box, class_id in zip(found.xyxy.astype(int), found.class_id, strict=True):
                    mask = np.zeros(image.shape[:2], bool)
                    mask[box[1] : box[3], box[0] : box[2]] = True
                    objects.append((dataset.classes[class_id], mask))
                yield image, objects


def png_by(read: Callable[[str], np.ndarray]) -> Reader:
    def reader(root: Path) -> Read:
        legend = json.loads((root / "legend.json").read_text())
        names = {category["id"]: category["name"] for category in legend["categories"]}
        for listed in legend["images"]:
            numbers = read(str(root / listed["masks"]))
            assert numbers.dtype == np.uint16
            yield (
                rgb(root / "images" / listed["file_name"]),
                [(names[i["category_id"]], numbers == i["value"]) for i in listed["instances"]],
            )

    return reader


def by_pillow(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def brush_of(code: list[int]) -> np.ndarray:
    """rle-pack's values, bit by bit, as its source has it."""
    bits = np.unpackbits(np.array(code, np.uint8))
    place = 0

    def number(count: int) -> int:
        nonlocal place
        place += count
        return int("".join(map(str, bits[place - count : place])), 2)

    total, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        run, length = number(1), number(sizes[number(2)]) + 1
        values += [number(word)] * length if run else [number(word) for _ in range(length)]
    return np.array(values, np.uint8)


def label_studio_by_its_rules(root: Path) -> Read:
    """Served from the root as LOCAL_FILES_DOCUMENT_ROOT."""
    from urllib.parse import parse_qs, urlsplit

    labels = [e.get("value") for e in ElementTree.parse(root / "label_config.xml").iter("Label")]
    assert len(labels) == len(set(labels))
    for task in json.loads((root / "tasks.json").read_text()):
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        image, objects = rgb(root / parse_qs(address.query)["d"][0]), []
        for result in task["predictions"][0]["result"]:
            (name,) = result["value"]["brushlabels"]
            assert name in labels
            values = brush_of(result["value"]["rle"]).reshape(*image.shape[:2], 4)
            objects.append((name, values[..., 3] > 0))
        yield image, objects


def brush_by_shifts(code: list[int]) -> bytes:
    """The values of a brush's code, by the algorithm of Label Studio's converter.

    Its documentation of brush labels points to it: 32 bits with the number of values, 5 with the
    word size less one, 4 times 4 with the sizes of lengths less one; then blocks of a bit that
    tells a run from a list, 2 bits for which of the sizes, the length less one, and the values.
    """
    bits, left = int.from_bytes(bytes(code), "big"), 8 * len(code)

    def take(count: int) -> int:
        nonlocal left
        left -= count
        return (bits >> left) & ((1 << count) - 1)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1, take(4) + 1, take(4) + 1, take(4) + 1]
    values = bytearray()
    while len(values) < count:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        values += (
            bytes([take(word)]) * length if is_run else bytes(take(word) for _ in range(length))
        )
    assert len(values) == count
    assert left < 8  # nothing but the padding of the last byte
    return bytes(values)


def label_studio_as_its_converter_does(root: Path) -> Read:
    """By the labelling interface: a result's tag names the image's, which names a member of data.

    The size is the result's own, and the mask is the alpha channel.
    """
    interface = ElementTree.parse(root / "label_config.xml")
    member_of = {e.attrib["name"]: e.attrib["value"].lstrip("$") for e in interface.iter("Image")}
    tags = {e.attrib["name"]: e for e in interface.iter("BrushLabels")}
    for task in json.loads((root / "tasks.json").read_text()):
        images, objects = set(), []
        for result in task["predictions"][0]["result"]:
            tag = tags[result["from_name"]]
            assert tag.attrib["toName"] == result["to_name"]
            address = task["data"][member_of[result["to_name"]]]
            images.add(unquote(address.partition("?d=")[2]))
            assert (result["type"], result["value"]["format"]) == ("brushlabels", "rle")
            assert result["image_rotation"] == 0
            (name,) = result["value"][result["type"]]
            assert [e for e in tag.iter("Label") if e.attrib["value"] == name]
            height, width = result["original_height"], result["original_width"]
            values = np.frombuffer(brush_by_shifts(result["value"]["rle"]), np.uint8)
            objects.append((name, values.reshape(height, width, 4)[:, :, 3] > 127))
        (path,) = images
        yield rgb(root / path), objects


def cvat_by_its_sdk(root: Path) -> Read:
    tree = ElementTree.parse(root / "annotations.xml")
    labels = [element.text for element in tree.iterfind("meta/task/labels/label/name")]
    assert len(labels) == len(set(labels))
    for element in tree.iter("image"):
        image, objects = rgb(root / "images" / element.attrib["name"]), []
        for one in element.iter("mask"):
            left, top, width, height = (
                int(one.attrib[name]) for name in ("left", "top", "width", "height")
            )
            runs = [int(run) for run in one.attrib["rle"].split(",")]
            box = [left, top, left + width - 1, top + height - 1]
            size = {"image_width": image.shape[1], "image_height": image.shape[0]}
            assert one.attrib["label"] in labels
            objects.append((one.attrib["label"], decode_mask(runs + box, **size).astype(bool)))
        yield image, objects


def cvat_by_its_rules(root: Path) -> Read:
    """Runs of the box, row by row, background first."""
    for element in ElementTree.parse(root / "annotations.xml").iter("image"):
        image, objects = rgb(root / "images" / element.attrib["name"]), []
        for one in element.iter("mask"):
            runs = [int(run) for run in one.attrib["rle"].split(", ")]
            flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            left, top, width, height = (
                int(one.attrib[name]) for name in ("left", "top", "width", "height")
            )
            mask = np.zeros(image.shape[:2], bool)
            mask[top : top + height, left : left + width] = flat.reshape(height, width)
            objects.append((one.attrib["label"], mask))
        yield image, objects


READERS: list[tuple[str, Reader]] = [
    ("coco", coco_by_pycocotools),
    ("coco", coco_by_supervision),
    ("coco-polygons", coco_by_pycocotools),
    ("coco-polygons", coco_by_supervision),
    ("yolo-seg", yolo_by_ultralytics_rules),
    ("yolo-seg", yolo_by_supervision),
    ("voc", voc_by_its_rules),
    ("voc", voc_by_supervision),
    ("png", png_by(lambda path: np.asarray(cv2.imread(path, cv2.IMREAD_UNCHANGED)))),
    ("png", png_by(by_pillow)),
    ("label-studio", label_studio_by_its_rules),
    ("label-studio", label_studio_as_its_converter_does),
    ("cvat", cvat_by_its_sdk),
    ("cvat", cvat_by_its_rules),
]


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("format", "reader"), READERS)
def test_masks_lie_on_their_images_and_have_their_classes(
    hard: Any, exported: Any, format: str, reader: Reader
) -> None:
    made = exported(hard, format, images=True)
    assert made.report["round_trip"]["mean_iou"] == 1
    assert made.report["left_out"] == []
    name_of: dict[int, str] = {}
    images = []
    for image, objects in reader(made.unpacked()):
        image_id = int(image[0, 0, 2]) // 10
        images.append(image_id)
        assert np.array_equal(image, pixels_of(image_id))
        assert len(objects) == 2
        for name, mask in objects:
            if reader is coco_by_supervision and format == "coco-polygons":
                assert mask.sum() == 90  # it paints outlines too: a pixel at the right and below
                mask = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
            else:
                assert mask.sum() == 72
            ((red, green, _),) = np.unique(image[mask], axis=0)
            assert green == 255
            assert name_of.setdefault(int(red) // 20, name) == name
    assert sorted(images) == sorted(NAMES)
    assert len(set(name_of.values())) == len(name_of) == 12
    assert name_of[1] == "apple"
    assert name_of[8] == "no"
    assert name_of[10] == "apple_2"
    assert not [name for name in name_of.values() if "/" in name or name.startswith(".")]
    assert all(name_of.values())
    assert any("apple" in note and "called otherwise" in note for note in made.report["notes"])


def test_every_format_has_two_readers() -> None:
    assert Counter(format for format, _ in READERS) == dict.fromkeys(FORMATS, 2)


def test_names_that_are_fine_stay(scene: Any, exported: Any) -> None:
    made = exported(scene, "coco")
    assert [c["name"] for c in json.loads(made.path.read_text())["categories"]] == [
        "Kerne, groß",
        'a <cell> & "co"',
    ]
    assert not any("called otherwise" in note for note in made.report["notes"])


@pytest.mark.parametrize("format", FORMATS)
def test_without_images_names_are_those_of_the_users_files(
    memory: Any, exported: Any, format: str
) -> None:
    names = {1: "photos\\a.png", 2: "bb:c.png", 3: "frame_000000", 4: "images/d.png"}
    mask = np.eye(6, dtype=bool)
    made = exported(memory({id_: [mask] for id_ in names}, names=names), format)
    assert made.report["round_trip"]["mean_iou"] > 0.5
    assert made.report["left_out"] == []
    expected = ["photos/a.png", "bb:c.png", "frame_000000", "images/d.png"]
    if format.startswith("coco"):
        written = [image["file_name"] for image in json.loads(made.path.read_text())["images"]]
        assert written == expected
    elif format == "cvat":
        tree = ElementTree.parse(made.path)
        assert [element.get("name") for element in tree.iter("image")] == expected
    elif format == "yolo-seg":
        labels = [name for name in made.names() if name.startswith("labels/")]
        stems = ("photos/a", "bb:c", "frame_000000", "d")
        assert labels == [f"labels/train/{stem}.txt" for stem in stems]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_readers_find_nothing_in_counts_as_lost(
    hard: Any, exported: Any, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Images that lie where no rule of the format leads to."""
    monkeypatch.setattr(FORMATS[format], "image_path", lambda self, image: f"photos/{image.id}.png")
    made = exported(hard, format, images=True)
    if format == "label-studio":  # says itself where they are
        assert made.report["round_trip"]["mean_iou"] == 1
        return
    assert made.report["round_trip"]["mean_iou"] == 0
    assert made.report["left_out_count"] == len(NAMES)
    assert "readers of the format" in made.report["left_out"][0]["why"]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_an_image_of_another_size_counts_as_lost(
    hard: Any, exported: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str
) -> None:
    file = type(hard).file

    def other(self: Any, image: ImageInfo) -> Path:
        path = Path(file(self, image))
        if image.id == 2:
            Image.new("RGB", (HEIGHT, WIDTH)).save(path, "PNG")
        return path

    monkeypatch.setattr(type(hard), "file", other)
    report = exported(hard, format, images=True).report
    assert report["round_trip"]["mean_iou"] == pytest.approx(13 / 14)
    assert [(one["image_id"], one["why"]) for one in report["left_out"]] == [
        (2, "the image has 24×40 pixels, its masks 40×24")
    ]


def test_the_report_is_in_the_file(hard: Any, exported: Any) -> None:
    made = exported(hard, "yolo-seg", images=True)
    with zipfile.ZipFile(made.path) as archive:
        assert json.loads(archive.read("report.json")) == made.report
        assert "path" not in yaml.safe_load(archive.read("data.yaml"))
