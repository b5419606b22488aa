r"""Which file a name in a document means: one rule for the service, its client and the library.

Documents come from other tools and other machines. The same image is `photos\a.JPG`, `a.jpg`,
`/data/upload/3/1a2b3c4d-a.jpg` or `s3://bucket/photos/a.jpg` in them, and a frame of a video has no
suffix at all. The exact name counts first, then ever looser readings of it; where two files (or two
names) fit equally well nothing is guessed: the answer lists the candidates.

`sapnet.data.file_pairing` finds the files of a document's names by it. Both import the standard
library alone.
"""

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_CROWDED = 64  # images of one base name, from which on folders must tell them apart
_DEEPEST = 16  # folders by which these are told apart
_KINDS = (
    ("jpg", "jpeg", "jpe", "jfif"),
    ("tif", "tiff"),
    ("png",),
    ("webp",),
    ("bmp", "dib"),
    ("gif",),
    ("heic", "heif"),
    ("avif",),
    ("jp2", "j2k"),
    ("jxl",),
    ("dng",),
    ("tga",),
    ("ppm", "pgm", "pnm"),
)
_KIND_OF = {f".{suffix}": kind[0] for kind in _KINDS for suffix in kind}
_ARCHIVE = re.compile(
    r"\.(zip|tar|t?gz|t?xz|t?bz2?|tbz2|7z|rar|t?zst|lz4|lzma|z|cab|iso|dmg)$", re.IGNORECASE
)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_UPLOAD_PATH = re.compile(r"(?:^|/)upload/(?:\d+/)?([^/]+)$")
_SUBSET = re.compile(r"(train|val|valid|validation|test|dev)[\d_-]*$")
_DRIVE = re.compile(r"^[A-Za-z]:")
_NOT_KEPT = re.compile(r"[^\w.-]")

SAME, AS_UPLOADED, SAME_KIND, OTHER_KIND = range(4)
"""How base names agree: but for spelling; but for what Label Studio changes in the name of a file
that is uploaded; in kind, one of them maybe without a suffix; but for the kind of image."""

Rank = tuple[int, ...]
"""How well a file fits a name; less is better."""
EXACT: Rank = (-1, 0, 0, 0, 0, 0, 0)
UNCLEAR: Rank = (2, 0, 0, 0, 0, 0, 0)


def is_address(name: str) -> bool:
    """Whether a name is a URL, or the address of a file in Label Studio."""
    path = name.replace("\\", "/")
    rooted = path.startswith(("/", "../")) or _DRIVE.match(path) is not None
    return "://" in path or "/local-files/?d=" in path or (rooted and "/upload/" in path)


def relative(name: str) -> str:
    """The path within the folder of images that a name, a host's path or an address means.

    Slashes are forward ones. No drive, no root, no `..` is left, so that it may be joined to a
    folder; it may be empty.
    """
    path = _path_of_address(name) if is_address(name) else None
    path = name if path is None else path
    path = _DRIVE.sub("", path.replace("\\", "/"))
    parts = posixpath.normpath("/" + path).split("/")  # below the root, ".." leads nowhere
    return "/".join(part for part in parts if part)


def without_upload_prefix(base: str) -> str:
    """A base name without what Label Studio puts before that of a file that is uploaded."""
    return _UPLOADED.sub("", base, count=1) if _UPLOADED.match(base) else base


def is_image_suffix(suffix: str) -> bool:
    """Whether a suffix, with its dot, is one that images have."""
    return suffix.casefold() in _KIND_OF


def split_suffix(name: str) -> tuple[str, str]:
    """A name and the suffix of images that it has, if any: a frame.000012 has none."""
    stem, suffix = posixpath.splitext(name)
    return (stem, suffix) if is_image_suffix(suffix) else (name, "")


def is_archive_name(name: str) -> bool:
    """Whether a file is called as archives are, also those that nothing here reads."""
    return _ARCHIVE.search(name) is not None


def _path_of_address(name: str) -> str | None:
    """None where it is none."""
    try:
        parts = urlsplit(name.replace("\\", "/"))
        local = parse_qs(parts.query).get("d")
    except ValueError:
        return None
    path = local[0] if local else unquote(parts.path)
    uploaded = None if local else _UPLOAD_PATH.search(path)
    return uploaded.group(1) if uploaded else path


@dataclass(frozen=True, slots=True)
class _Parts:
    """A name taken apart for comparison. All but `plain` have no upper case."""

    plain: str
    folders: tuple[str, ...]
    base: str
    prefix: str
    stem: str
    kind: str


def plain_path(name: str) -> str:
    """One spelling for one path: slashes, decoded, composed accents (macOS splits them)."""
    path = relative(name)
    if "%" in path:
        decoded = unquote(path, errors="replace")
        path = path if "\ufffd" in decoded else decoded
    return unicodedata.normalize("NFC", path)


def _taken_apart(plain: str) -> _Parts:
    *folders, base = (part.strip() for part in plain.casefold().split("/"))
    short = without_upload_prefix(base)
    stem, suffix = posixpath.splitext(short)
    kind = _KIND_OF.get(suffix, "")
    kept = _NOT_KEPT.sub("", (stem if kind else short).strip().replace(" ", "_"))
    return _Parts(plain, tuple(folders), base, base[: len(base) - len(short)], kept, kind)


def _rank(wanted: _Parts, sent: _Parts, by_address: bool) -> Rank | None:
    """None where they do not fit."""
    if wanted.base == sent.base:
        agreement = SAME
    elif wanted.stem != sent.stem or (
        wanted.prefix and sent.prefix and wanted.prefix != sent.prefix
    ):
        return None  # of two uploads of one name each has its own prefix
    elif wanted.kind == sent.kind:
        same_suffix = PurePosixPath(wanted.base).suffix == PurePosixPath(sent.base).suffix
        agreement = AS_UPLOADED if same_suffix else SAME_KIND
    else:
        agreement = OTHER_KIND if wanted.kind and sent.kind else SAME_KIND
    one, other = wanted.folders[::-1], sent.folders[::-1]
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    differing = one[shared : shared + 1] + other[shared : shared + 1]
    if len(differing) == 2 and all(map(_SUBSET.match, differing)):
        return None  # images of one base name in train and in val are two
    named = _subset_folder(one), _subset_folder(other)
    whole = shared == len(one) == len(other)
    within = shared == min(len(one), len(other))
    return (
        int(not within),
        agreement,
        int(None not in named and named[0] != named[1]),
        int(not whole),
        -shared,
        int(by_address),
        int(wanted.plain != sent.plain),
    )


def _subset_folder(inwards: Sequence[str]) -> str | None:
    """The innermost folder that is called as a subset, wherever it is: train in train/images.

    Args:
        inwards: folders, the innermost first.
    """
    return next(filter(_SUBSET.match, inwards), None)


@dataclass(frozen=True, slots=True)
class Match:
    """What a file may be.

    Attributes:
        names: of the document; one, unless several fit equally well.
    """

    names: tuple[str, ...]
    rank: Rank

    @property
    def warning(self) -> str | None:
        """What speaks against it, for people: the match holds, but should be looked at."""
        if self.rank[1] == OTHER_KIND:
            return "another kind of image"
        return "another folder" if self.rank[0] == 1 else None


class FileNames:
    """The names of a document's images, to be asked which of them a file is meant for.

    Args:
        names: of the document, each once.
        addresses: of images that have one (`coco_url`), by name; a file may be named as that.
    """

    def __init__(self, names: Iterable[str], addresses: Mapping[str, str] | None = None) -> None:
        self._exact = dict.fromkeys(names)
        self._whole: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[tuple[str, str, bool]]] = {}
        self._by_tail: dict[tuple[str, ...], list[tuple[str, str, bool]]] = {}
        self._divided: set[str] = set()
        for name in self._exact:
            plain = self._add(name, name, by_address=False)
            self._whole.setdefault(plain.casefold(), []).append(name)
        for name, address in (addresses or {}).items():
            if name in self._exact:
                self._add(name, address, by_address=True)

    def _add(self, name: str, spelled: str, *, by_address: bool) -> str:
        plain = plain_path(spelled)
        stem = _taken_apart(plain).stem
        self._by_stem.setdefault(stem, []).append((name, plain, by_address))
        return plain

    def match(self, file: str) -> Match | None:
        """The name that fits best; None where none does."""
        if file in self._exact:
            return Match((file,), EXACT)
        sent = _taken_apart(plain_path(file))
        whole = [
            (name, plain_path(name), False) for name in self._whole.get(sent.plain.casefold(), ())
        ]
        if best := self._best(sent, whole[:_CROWDED]):
            return best
        near = self._near(sent)
        if len(near) > _CROWDED:  # which of them would be a guess
            return Match(tuple(dict.fromkeys(name for name, _, _ in near[:_CROWDED])), UNCLEAR)
        return self._best(sent, near)

    def _best(self, sent: _Parts, candidates: Iterable[tuple[str, str, bool]]) -> Match | None:
        ranked: dict[str, Rank] = {}
        for name, plain, by_address in candidates:
            rank = _rank(_taken_apart(plain), sent, by_address)
            if rank is not None and rank < ranked.get(name, UNCLEAR):
                ranked[name] = rank
        if not ranked:
            return None
        best = min(ranked.values())
        return Match(tuple(name for name, rank in ranked.items() if rank == best), best)

    def _near(self, sent: _Parts) -> list[tuple[str, str, bool]]:
        """Those of its stem: where they are too many, those that share folders with it."""
        near = self._by_stem.get(sent.stem, [])
        if len(near) <= _CROWDED:
            return near
        if sent.stem not in self._divided:
            self._divided.add(sent.stem)
            for entry in near:
                parts = _taken_apart(entry[1])
                for start in range(max(0, len(parts.folders) - _DEEPEST), len(parts.folders)):
                    tail = (*parts.folders[start:], parts.stem)
                    self._by_tail.setdefault(tail, []).append(entry)
        deepest = max(0, len(sent.folders) - _DEEPEST)
        for start in range(len(sent.folders) - 1, deepest - 1, -1):
            some = self._by_tail.get((*sent.folders[start:], sent.stem), [])
            if len(some) <= _CROWDED:
                return some or near
            near = some
        return near
