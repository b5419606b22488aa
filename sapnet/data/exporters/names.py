"""What images and classes are called in an export, so that its readers find each of them."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sapnet.data.file_names import is_image_suffix, relative, split_suffix
from sapnet.types import ImageInfo

_NOT_EVERYWHERE = re.compile(r'[<>:"|?*]')  # Windows has no files with these in their names


def image_names(
    images: Iterable[ImageInfo], suffix_of: Callable[[ImageInfo], str] | None
) -> dict[int, str]:
    """A relative path by image id, no two of which are equal but for case.

    Files that come along differ without their suffixes too: some readers know images by that.

    Args:
        suffix_of: the suffix of an image whose name has none, by its content. None where the files
            stay where they are: then names are theirs, and only have forward slashes.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    for image in images:
        path = relative(image.file_name) or f"image_{image.id}"
        if suffix_of is not None:
            path = "/".join(map(_for_any_system, path.split("/")))
            if not is_image_suffix(posixpath.splitext(path)[1]):
                path += suffix_of(image)
        stem, suffix = posixpath.splitext(path)
        while path.casefold() in taken:
            stem += f"_{image.id}"
            path = stem + suffix
        taken.add(path.casefold())
        names[image.id] = path
    if suffix_of is None:
        return names
    return {id_: stem + split_suffix(names[id_])[1] for id_, stem in stems(names).items()}


def _for_any_system(part: str) -> str:
    """Part of a path, not hidden, that Windows can write too."""
    return _NOT_EVERYWHERE.sub("_", part).lstrip(".").rstrip(". ") or "_"


def stems(names: Mapping[int, str]) -> dict[int, str]:
    """Image id -> its name without suffix, for formats that pair files so.

    Two that would be one (a.png and a.jpg, or A and a) keep theirs: a_png, a_jpg.
    """
    plain = {id_: split_suffix(name) for id_, name in names.items()}
    count = Counter(stem.casefold() for stem, _ in plain.values())
    taken: set[str] = set()
    results = {}
    for id_, (stem, suffix) in plain.items():
        if count[stem.casefold()] > 1 and suffix:
            stem = f"{stem}_{suffix[1:]}"
        while stem.casefold() in taken:
            stem += "_"
        taken.add(stem.casefold())
        results[id_] = stem
    return results


def suffix_by_content(head: bytes) -> str:
    """Of an image, by its first 12 bytes."""
    for magic, suffix in (
        (b"\xff\xd8", ".jpg"),
        (b"\x89PNG", ".png"),
        (b"BM", ".bmp"),
        (b"RIFF", ".webp"),
    ):
        if head.startswith(magic):
            return suffix
    return ".tif"
