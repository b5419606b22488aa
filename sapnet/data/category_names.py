"""Names of categories: which ones other tools trip over, and what exports call them instead.

Classes are told apart by their ids here; most other tools know them by name, and some make files,
folders and tables of these names.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sapnet.errors import ValidationIssue
from sapnet.types import Category

LONGEST = 100
NAMED = 10  # categories in a warning
_SEPARATORS = re.compile(r"[/\\]")
_JOINERS = "\u200c\u200d"  # parts of words and of emoji
_AS_TABLES_READ = re.compile(
    r"""[,;"\t]|:( |$)|(^| )\#|^[=+\-@\[\]{}&*!|>%'`?~]|^(null|true|false|yes|no|on|off|nan)$"""
)


def category_warnings(
    categories: Sequence[Category],
    annotations: Mapping[int, int],
    parents: Collection[str] = (),
) -> list[ValidationIssue]:
    """What is odd, but legal, about the categories of a document.

    Args:
        annotations: how many there are by category id.
        parents: names that categories have as their supercategory.
    """
    warnings = []
    for noted, problem, hint in (
        (
            _equal(categories),
            "category names are equal, but for case and spaces",
            "merge or rename them",
        ),
        (
            [_shown(c) for c in categories if not _key(c.name)],
            "category names are empty",
            "name them",
        ),
        (
            [_shown(c) for c in categories if _key(c.name) and _unsafe(c.name)],
            "category names are unsafe as those of files (separators, leading dots, odd spaces, "
            f"characters that do not show, over {LONGEST} characters)",
            "rename them",
        ),
        (
            [_shown(c) for c in categories if _AS_TABLES_READ.search(_key(c.name))],
            "category names may be read differently from CSV or YAML (separators, quotes, signs, "
            "words such as 'no')",
            "rename them, or check what your tools make of them",
        ),
        (
            _unused_roots(categories, annotations, parents),
            "root categories without annotations are classes all the same",
            "leave them out, unless they are wanted",
        ),
    ):
        if noted:
            more = f" and {len(noted) - NAMED} more" if len(noted) > NAMED else ""
            text = f"{problem}: {', '.join(noted[:NAMED])}{more}"
            warnings.append(ValidationIssue("/categories", text, hint))
    return warnings


def distinct_names(
    categories: Iterable[Category],
    clean: Callable[[str], str] = lambda name: name,
    reserved: Iterable[str] = (),
) -> dict[int, str]:
    """A name by category id that no other category has, not even but for case and spaces.

    Names that are fine stay as they are; of equal ones the first does.

    Args:
        clean: replaces what a format cannot write.
        reserved: names that mean something else in a format.
    """
    categories = list(categories)
    plain = {c.id: clean(cleaned(c.name)) or f"category_{c.id}" for c in categories}
    untouched = {_key(name) for c in categories if (name := plain[c.id]) == c.name}
    taken = set(map(_key, reserved))
    names = {}
    for category in categories:
        name = plain[category.id]
        changed = name != category.name and _key(name) in untouched
        if changed or _key(name) in taken:
            name = f"{name}_{category.id}"
            while _key(name) in taken | untouched:
                name += "_"
        taken.add(_key(name))
        names[category.id] = name
    return names


def cleaned(name: str) -> str:
    """A name that may be that of a file or a folder on any system; empty where nothing is left."""
    shown = "".join(
        character
        for character in unicodedata.normalize("NFC", name)
        if character in _JOINERS
        or character.isspace()
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn")
    )
    text = _SEPARATORS.sub("_", " ".join(shown.split()))
    return text.lstrip(". ")[:LONGEST].rstrip()


def _key(name: str) -> str:
    """Equal for names that are, but for case, spaces and spelling."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _unsafe(name: str) -> bool:
    return cleaned(name) != unicodedata.normalize("NFC", name)


def _shown(category: Category) -> str:
    name = category.name if len(category.name) <= LONGEST else category.name[: LONGEST - 1] + "…"
    return f"{name!r} (id {category.id})"


def _equal(categories: Iterable[Category]) -> list[str]:
    groups: dict[str, list[Category]] = {}
    for category in categories:
        if key := _key(category.name):
            groups.setdefault(key, []).append(category)
    return [" = ".join(map(_shown, group)) for group in groups.values() if len(group) > 1]


def _unused_roots(
    categories: Iterable[Category], annotations: Mapping[int, int], parents: Collection[str]
) -> list[str]:
    return [_shown(c) for c in categories if c.name in parents and not annotations.get(c.id)]
