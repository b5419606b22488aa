"""Pairs the names of a document's images with the files that were sent, or that a folder holds.

Which file fits a name is the rule of `sapnet.data.file_names`. `pair` does it for a list of files,
`files_in` for a folder, and `Pairing` for files that come one after the other.
"""

import difflib
import filecmp
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Generic, TypeVar

from sapnet.data.file_names import FileNames, Match, is_archive_name, plain_path, relative
from sapnet.errors import InvalidDataset, ValidationIssue

if TYPE_CHECKING:
    from sapnet.types import ImageInfo

NAMED = 10
"""Names in a message, and names that near misses are looked for."""
DOCUMENTS = (".json", ".geojson", ".xml", ".yaml", ".yml", ".txt")
"""Suffixes of the files of a data set that are no images."""
_POOL = 500  # files among which near misses are looked for
_COMPARED = 64  # characters of names; the time for that grows with their square
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A name whose file is not there, or not clear.

    Attributes:
        problem: without a full stop, for people.
    """

    problem: str
    hint: str


@dataclass
class _Taken(Generic[F]):
    sent_as: str
    file: F
    match: Match
    others: list[str] = field(default_factory=list)


class Pairing(Generic[F]):
    """Finds the file of each name, of files that come one after the other.

    Args:
        names: of the document, each once.
        addresses: see `FileNames`.
        equal: whether two files have the same content, and so either will do.
    """

    def __init__(
        self,
        names: Iterable[str],
        addresses: Mapping[str, str] | None = None,
        equal: Callable[[F, F], bool] = lambda one, other: False,
    ) -> None:
        self._names = list(names)
        self._index = FileNames(self._names, addresses)
        self._equal = equal
        self._taken: dict[str, _Taken[F]] = {}
        self._unclear: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        self._unused: list[str] = []

    @property
    def taken(self) -> dict[str, F]:
        """The best file of each name, also where others fit equally well."""
        return {name: taken.file for name, taken in self._taken.items()}

    @property
    def matched(self) -> dict[str, F]:
        """The file of each name that has a clear one."""
        return {name: t.file for name, t in self._taken.items() if not t.others}

    @property
    def sent_as(self) -> dict[str, str]:
        """Of each name in `matched`, how its file is called."""
        return {name: t.sent_as for name, t in self._taken.items() if not t.others}

    def __len__(self) -> int:
        return len(self._taken)

    def fits(self, sent_as: str) -> tuple[str, ...]:
        """The names that a file fits; it is not taken, nor noted."""
        match = self._index.match(sent_as)
        return match.names if match else ()

    def match(self, sent_as: str) -> Match | None:
        """What a file would be taken for, by its name alone; None where it is of no use."""
        match = self._index.match(sent_as)
        if match is None or len(match.names) > 1:
            for name in match.names if match else ():
                existing = self._unclear.setdefault(name, [])
                if len(existing) < NAMED:
                    existing.append((sent_as, match.names if match else ()))
            self._set_by(sent_as)
            return None
        before = self._taken.get(match.names[0])
        if before is not None and before.match.rank < match.rank:
            self._set_by(sent_as)
            return None
        return match

    def take(self, match: Match, sent_as: str, file: F) -> F | None:
        """Keep a file for the name of its match.

        Returns:
            The file that is not needed, if any: one before, or this one.
        """
        (name,) = match.names
        before = self._taken.get(name)
        if before is None or match.rank < before.match.rank:
            self._taken[name] = _Taken(sent_as, file, match)
            if before is None:
                return None
            self._set_by(before.sent_as)
            return before.file
        if not self._equal(before.file, file):
            before.others.append(sent_as)
        return file

    def _set_by(self, sent_as: str) -> None:
        if len(self._unused) < _POOL:
            self._unused.append(sent_as)

    def warnings(self) -> dict[str, list[str]]:
        """What speaks against some of the pairs, each with "'file' for 'name'" of those."""
        warnings: dict[str, list[str]] = {}
        for name, taken in self._taken.items():
            if not taken.others and (warning := taken.match.warning):
                warnings.setdefault(warning, []).append(f"{taken.sent_as!r} for {name!r}")
        return warnings

    def unclear(self) -> dict[str, Unpaired]:
        """Names that several files fit equally well."""
        hint = "send only one of them, or use its whole path as file_name"
        return {
            name: Unpaired(
                f"{'each of' if len(taken.others) > 1 else 'both'} "
                f"{_listed([taken.sent_as, *taken.others])} could be the image {name!r}",
                hint,
            )
            for name, taken in self._taken.items()
            if taken.others
        }

    def missing(self) -> dict[str, Unpaired]:
        """Names without a file; the first of them with files of a similar name."""
        missing: dict[str, Unpaired] = {}
        for name in self._names:
            if name in self._taken:
                continue
            problem, hint = f"there is no image {name!r}", "send it, or correct the name"
            if name in self._unclear:
                sent_as, names = self._unclear[name][0]
                problem += f": {sent_as!r} could be any of {_listed(names)}"
                hint = f"name the file as the document does: {name!r}"
            elif len(missing) < NAMED and (near := self.similar(name)):
                hint += f"; did you mean {_listed(near, 'or')}?"
            missing[name] = Unpaired(problem, hint)
        return missing

    def similar(self, name: str) -> list[str]:
        """Files of no other use whose names are almost this one."""
        bases: dict[str, str] = {}
        for other in self._unused:
            bases.setdefault(_compared(other), other)
        near = difflib.get_close_matches(_compared(name), bases, n=3, cutoff=0.7)
        return [bases[base] for base in near]

    def candidates(self) -> Iterator[str]:
        """Files that were taken, might have been, or are named almost as a name without a file."""
        results: dict[str, None] = {}
        for taken in self._taken.values():
            results |= dict.fromkeys((taken.sent_as, *taken.others))
        for number, name in enumerate(name for name in self._names if name not in self._taken):
            results |= dict.fromkeys(sent_as for sent_as, _ in self._unclear.get(name, ()))
            if number < NAMED:
                results |= dict.fromkeys(self.similar(name))
        yield from results


def _compared(name: str) -> str:
    return PurePosixPath(plain_path(name)).name.casefold()[:_COMPARED]


def pair(
    names: Iterable[str],
    files: Mapping[str, F],
    addresses: Mapping[str, str] | None = None,
    equal: Callable[[F, F], bool] = lambda one, other: False,
) -> Pairing[F]:
    """Find the file of each name.

    Args:
        names: of the document, each once.
        files: by what they are called: paths with any slashes.
        addresses, equal: see `Pairing`.
    """
    pairing = Pairing(names, addresses, equal)
    for sent_as, file in files.items():
        if (match := pairing.match(sent_as)) is not None:
            pairing.take(match, sent_as, file)
    return pairing


def files_in(
    folder: Path, names: Iterable[str], addresses: Mapping[str, str] | None = None
) -> Pairing[Path]:
    """Find the file of each name in a folder and all below it.

    The folder is listed only where a name is not there as it is.
    """
    names = list(names)
    exact = {name: folder / name for name in names if relative(name) == name}
    there = {name: path for name, path in exact.items() if path.is_file()}
    if len(there) < len(names):
        there |= files_below(folder)
    return pair(names, there, addresses, lambda one, other: filecmp.cmp(one, other, shallow=False))


def find_image_files(
    folder: Path,
    images: Iterable["ImageInfo"],
    addresses: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[int, Path]:
    """The file of each image, by image id, in a folder and all below it.

    Args:
        addresses: see `FileNames`.
        warn: called with what should be looked at.

    Raises:
        InvalidDataset: lists the images that have no file, or several that fit equally well.
    """
    ids = {image.file_name: image.id for image in images}
    if not folder.is_dir():
        raise InvalidDataset([ValidationIssue("", f"there is no folder {folder}", "name another")])
    pairing = files_in(folder, ids, addresses)
    if unpaired := pairing.missing() | pairing.unclear():
        issues = [
            ValidationIssue(f"image {ids[name]}", why.problem, why.hint)
            for name, why in unpaired.items()
        ]
        if archives := [name for name in files_below(folder) if is_archive_name(name)]:
            problem = f"archives in {folder} are not read: {_listed(archives)}"
            issues.insert(0, ValidationIssue("", problem, "unpack them"))
        raise InvalidDataset(issues)
    for difference, pairs in pairing.warnings().items():
        warn(f"taken although of {difference}: {in_words(pairs)}")
    return {ids[name]: path for name, path in pairing.matched.items()}


def files_below(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path from it; links to folders are followed, once each."""
    results: dict[str, Path] = {}
    visited: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for file in sorted(files):
            path = Path(root, file)
            results[path.relative_to(folder).as_posix()] = path
    return results


def _listed(names: Iterable[str], word: str = "and") -> str:
    return in_words([repr(name) for name in names], word)


def in_words(names: list[str], word: str = "and") -> str:
    """A list for a message: the first `NAMED`, and how many more there are."""
    few = names[:NAMED]
    if len(names) > NAMED:
        return f"{', '.join(few)} {word} {len(names) - NAMED} more"
    return f" {word} ".join([", ".join(few[:-1]), few[-1]] if len(few) > 1 else few)
