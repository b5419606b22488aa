"""GeoJSON whose coordinates are pixels of an image, as QuPath and napari write it.

An image is named by the property `image` or `file_name` of a feature or of the collection, else by
the name of the file. Points and MultiPoints count; what is no point is left out. Places are
FILE#/features/3.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.depth import parse
from sapnet.data.importers.base import Conversion
from sapnet.data.subsets import subset_named, subset_of_path

_IMAGE = ("image", "file_name", "filename")
_CLASS = ("class", "label", "category", "classification", "name")
_IN_PIXELS = "write coordinates in pixels of the image, without a crs"
LARGEST = 256 << 20  # bytes of a file


def read(files: Sequence[tuple[str, Path]], conversion: Conversion, progress: ReadProgress) -> None:
    """Read GeoJSON into the conversion."""
    done = 0
    for name, path in sorted(files):
        done += path.stat().st_size
        if path.stat().st_size > LARGEST:
            conversion.issues.add(f"{name}#", f"it has more than {LARGEST:,} bytes", "split it")
            continue
        try:
            document = parse(path.read_bytes())
        except ValueError as error:
            conversion.issues.add(f"{name}#", f"it is no JSON: {error}", "write it again")
        else:
            _Collection(name, conversion).read(document)
        progress(done)


class _Collection:
    """The features of a file, and the images that they name."""

    def __init__(self, name: str, conversion: Conversion) -> None:
        self._name, self._conversion = name, conversion
        self._ids: dict[str, int] = {}
        self._image = posixpath.splitext(name)[0]

    def read(self, document: Any) -> None:
        """All features."""
        document = document if isinstance(document, dict) else {}
        features = document.get("features")
        if not isinstance(features, list):
            problem = "it is no FeatureCollection with a list of features"
            self._conversion.issues.add(f"{self._name}#", problem, "write it again")
        elif document.get("crs") is not None:
            problem = "its coordinates are of the earth, not of an image"
            self._conversion.issues.add(f"{self._name}#/crs", problem, _IN_PIXELS)
        else:
            self._image = _text(document, _IMAGE) or self._image
            for number, feature in enumerate(features):
                self._feature(feature, f"{self._name}#/features/{number}")

    def _feature(self, feature: Any, place: str) -> None:
        feature = feature if isinstance(feature, dict) else {}
        geometry = feature.get("geometry")
        properties = feature.get("properties")
        geometry = geometry if isinstance(geometry, dict) else {}
        properties = properties if isinstance(properties, dict) else {}
        image_id = self._image_id(properties, place)
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Point", "MultiPoint"):
            self._conversion.left_out[str(kind)] += 1
            return
        label = _text(properties, _CLASS)
        if not label:
            hint = f"give each a property {' or '.join(map(repr, _CLASS[:2]))}"
            self._conversion.skip(place, "it has no class", hint)
            return
        try:
            several: Any = [coordinates] if kind == "Point" else coordinates
            points = [(float(x), float(y)) for x, y, *_ in several]
        except (TypeError, ValueError, OverflowError):
            self._conversion.skip(place, "its coordinates are no points", "write [x, y]")
            return
        # A MultiPoint is what programs write for several objects of one class.
        for point in points:
            self._conversion.object(image_id, label, [point], place)

    def _image_id(self, properties: dict[str, Any], place: str) -> int:
        image = _text(properties, _IMAGE) or self._image
        if image not in self._ids:
            stated = _text(properties, ("subset",))
            self._ids[image] = self._conversion.image(
                image,
                None,
                place,
                subset=subset_named(stated),
                named_subset=subset_of_path(posixpath.dirname(self._name)),
            )
        return self._ids[image]


def _text(properties: dict[str, Any], names: Sequence[str]) -> str:
    """The first of some properties that is a text; of QuPath's classification, its name."""
    for name in names:
        value = properties.get(name)
        value = value.get("name") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    return ""
