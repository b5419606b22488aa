"""What a reader of each format makes of an export: which image has which masks, of which class.

Files are found by the rules that the readers of a format have, not by what the exporter knows: a
label beside its image in another folder, a class by its name, an image below a folder. Pixels of
masks are compared when they are written (`Writer.add`).
"""

import json
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs, urlsplit
from xml.parsers import expat

import msgspec

from sapnet.data.annotations.json_stream import pieces
from sapnet.data.file_names import split_suffix

Found = tuple[str, str | None]
"""The path of an image, and the class of one of its masks; None for the image itself."""
_BLOCK = 1 << 20
_IMAGES, _LABELS = "/images/", "/labels/"


class Files(Protocol):
    """The files of an export."""

    def names(self) -> list[str]:
        """Their paths."""

    def open(self, name: str) -> BinaryIO:
        """One of them, to be read."""


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int


class _Legend(msgspec.Struct):
    file_name: str
    masks: str
    instances: list[dict[str, Any]]


def coco(files: Files) -> Iterator[Found]:
    """By ids; images are below a folder `images`."""
    for name in files.names():
        if name.startswith("annotations/instances_"):
            yield from _coco_document(files, name)


def _coco_document(files: Files, name: str) -> Iterator[Found]:
    images: dict[int, str] = {}
    classes: dict[int, str] = {}
    with files.open(name) as file:
        for piece in pieces(file):
            if piece.key == "images":
                for image in msgspec.json.decode(piece.text, type=list[_Image]):
                    images[image.id] = f"images/{image.file_name}"
                    yield images[image.id], None
            elif piece.key == "categories":
                listed = msgspec.json.decode(piece.text, type=list[_Category])
                ids = {c.name: c.id for c in listed}  # readers look classes up by name
                classes |= {id_: name for name, id_ in ids.items()}
            elif piece.key == "annotations":
                for one in msgspec.json.decode(piece.text, type=list[_Annotation]):
                    yield images[one.image_id], classes.get(one.category_id, "")


def yolo(files: Files) -> Iterator[Found]:
    """By path: the last /images/ in that of an image is /labels/ in that of its label."""
    names = files.names()
    listed = set(names)
    with files.open("data.yaml") as file:
        lines = file.read().decode().split("\n")
    pairs = (line.strip().split(": ", 1) for line in lines if line.startswith("  "))
    classes = {number: json.loads(name) for number, name in pairs}
    images = [name for name in names if name.startswith("images/")]
    labels = [name for name in names if name.startswith("labels/")]
    of_image = {
        name: (_LABELS.join(f"/{name}".rsplit(_IMAGES, 1)).rsplit(".", 1)[0] + ".txt")[1:]
        for name in images
    }
    if not images:  # the user has them
        of_image = {name.replace("labels/", "images/", 1)[: -len(".txt")]: name for name in labels}
    for image, label in of_image.items():
        yield image, None
        if label not in listed:
            continue
        with files.open(label) as file:
            for line in file:
                number, *numbers = line.decode().split()
                if len(numbers) >= 6 and len(numbers) % 2 == 0:
                    yield image, classes.get(number, "")


def voc(files: Files) -> Iterator[Found]:
    """By list: a stem in ImageSets names image, masks and annotation."""
    names = files.names()
    listed = set(names)
    of_stem = {
        posixpath.splitext(name)[0]: name for name in names if name.startswith("JPEGImages/")
    }
    stems: list[str] = []
    for path in names:
        if path.startswith("ImageSets/Segmentation/"):
            with files.open(path) as file:
                stems += file.read().decode().splitlines()
    for stem in stems:
        image = of_stem.get(f"JPEGImages/{stem}", f"JPEGImages/{stem}")
        masks = (f"SegmentationClass/{stem}.png", f"SegmentationObject/{stem}.png")
        yield image, None
        if not listed.issuperset(masks):
            continue
        with files.open(f"Annotations/{stem}.xml") as file:
            root = ElementTree.parse(file).getroot()
        if split_suffix(root.findtext("filename", ""))[0] == stem:
            for name in root.iterfind("object/name"):
                yield image, name.text or ""


def png(files: Files) -> Iterator[Found]:
    """By the legend."""
    listed = set(files.names())
    classes: dict[int, str] = {}
    with files.open("legend.json") as file:
        for piece in pieces(file):
            if piece.key == "categories":
                for one in msgspec.json.decode(piece.text, type=list[_Category]):
                    classes[one.id] = one.name
            elif piece.key == "images":
                for image in msgspec.json.decode(piece.text, type=list[_Legend]):
                    path = f"images/{image.file_name}"
                    yield path, None
                    if image.masks in listed:
                        for instance in image.instances:
                            yield path, classes.get(instance["category_id"], "")


def label_studio(files: Files) -> Iterator[Found]:
    """By address: d= is a path in the local storage; labels are those of the interface."""
    with files.open("label_config.xml") as file:
        interface = ElementTree.parse(file)
    labels = {label.get("value") for label in interface.iter("Label")}
    with files.open("tasks.json") as file:
        for line in file:  # a task each
            text = line.strip().removeprefix(b"[").rstrip(b",]")
            if not text:
                continue
            task = msgspec.json.decode(text)
            (image,) = parse_qs(urlsplit(task["data"]["image"]).query)["d"]
            yield image, None
            for prediction in task["predictions"]:
                for result in prediction["result"]:
                    (name,) = result["value"]["brushlabels"]
                    yield image, name if name in labels else ""


def cvat(files: Files) -> Iterator[Found]:
    """By name: images and labels are those of the task."""
    entries: list[Found] = []
    image = ""
    labels: set[str] = set()
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal image
        text.clear()
        if name == "image":
            image = f"images/{attributes['name']}"
            entries.append((image, None))
        elif name == "mask":
            label = attributes["label"]
            entries.append((image, label if label in labels else ""))

    def end(name: str) -> None:
        if name == "name":
            labels.add("".join(text))

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    with files.open("annotations.xml") as file:
        while block := file.read(_BLOCK):
            parser.Parse(block, False)
            yield from entries
            entries.clear()
    parser.Parse(b"", True)
    yield from entries


READERS: dict[str, Callable[[Files], Iterator[Found]]] = {
    "coco": coco,
    "coco-polygons": coco,
    "yolo-seg": yolo,
    "voc": voc,
    "png": png,
    "label-studio": label_studio,
    "cvat": cvat,
}
