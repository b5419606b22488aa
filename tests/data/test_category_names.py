"""What is said of names of categories, and what exports call them."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.data.category_names import LONGEST, category_warnings, cleaned, distinct_names
from sapnet.types import Category

NAMES = st.text(alphabet="aAÄä\u0308. /\\:,\"'=-#\t\u00a0\u200b\u202e\u2028\ufeff_12", max_size=5)


def categories(*names: str) -> list[Category]:
    return [Category(id_, name) for id_, name in enumerate(names, 1)]


def problems(*names: str, used: bool = True, parents: tuple[str, ...] = ()) -> list[str]:
    listed = categories(*names)
    annotations = {c.id: 1 for c in listed} if used else {1: 1}
    return [warning.problem for warning in category_warnings(listed, annotations, parents)]


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        ("Kern & co", "red blood cell"),
        ("Zürich", unicodedata.normalize("NFD", "Genève")),
        ("a-b", "a_b", "a b", "ab"),
        ("v1.2", "it's"),
        ("细胞", "نواة", "👩\u200d🔬"),
    ],
)
def test_names_that_are_fine(names: tuple[str, ...]) -> None:
    assert problems(*names) == []
    assert [unicodedata.normalize("NFC", n) for n in names] == list(
        distinct_names(categories(*names)).values()
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "a"), "equal"),
        (("a b", "A\u00a0B"), "equal"),
        (("\u00e9", "e\u0301"), "equal"),
        (("\ufb01", "fi"), "equal"),  # a ligature
        (("", "x"), "empty"),
        (("  ", "x"), "empty"),
        (("a/b",), "unsafe"),
        (("a\\b",), "unsafe"),
        (("..",), "unsafe"),
        ((".a",), "unsafe"),
        (("a ",), "unsafe"),
        (("a\u200bb",), "unsafe"),
        (("\ufeffa",), "unsafe"),
        (("a\u2028b",), "unsafe"),
        (("x" * (LONGEST + 1),), "unsafe"),
        (("a,b",), "CSV or YAML"),
        (("a;b",), "CSV or YAML"),
        (('say "a"',), "CSV or YAML"),
        (("a: b",), "CSV or YAML"),
        (("a #1",), "CSV or YAML"),
        (("@a",), "CSV or YAML"),
        (("-a",), "CSV or YAML"),
        (("[a]",), "CSV or YAML"),
        (("NO",), "CSV or YAML"),
        (("null",), "CSV or YAML"),
    ],
)
def test_names_that_other_tools_trip_over(names: tuple[str, ...], words: str) -> None:
    (problem,) = [problem for problem in problems(*names) if words in problem]
    assert repr(names[0])[:50] in problem


def test_only_roots_that_nothing_uses() -> None:
    assert problems("cell", "thing", parents=("thing", "none")) == []
    (problem,) = problems("cell", "thing", used=False, parents=("thing", "none"))
    assert problem == "root categories without annotations are classes all the same: 'thing' (id 2)"
    assert problems("cell", "unused", used=False, parents=("thing",)) == []


def test_many_are_counted() -> None:
    (problem,) = problems(*(f"a/{number}" for number in range(300)))
    assert problem.endswith("'a/9' (id 10) and 290 more")


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (("apple", "apple"), ("apple", "apple_2")),
        (("apple", "Apple", "apple_2"), ("apple", "Apple_2_", "apple_2")),
        ((" apple", "apple"), ("apple_1", "apple")),  # a name that is fine stays
        (("", "category_1"), ("category_1_1", "category_1")),
        (("a/b", "a_b"), ("a_b_1", "a_b")),
        (("../../etc", "..", "."), ("_.._etc", "category_2", "category_3")),
        (("background", "x"), ("background_1", "x")),
        (("x:y", "x_y"), ("x_y_1", "x_y")),
    ],
)
def test_names_in_exports(names: tuple[str, ...], written: tuple[str, ...]) -> None:
    found = distinct_names(
        categories(*names), lambda name: name.replace(":", "_"), reserved=("background",)
    )
    assert tuple(found.values()) == written


@pytest.mark.slow
@given(st.lists(NAMES, max_size=6))
def test_any_names_in_exports(names: list[str]) -> None:
    listed = categories(*names)
    found = distinct_names(listed)
    assert list(found) == [category.id for category in listed]
    assert len({" ".join(name.casefold().split()) for name in found.values()}) == len(listed)
    for category in listed:
        name = found[category.id]
        assert name == cleaned(name)
        assert (
            PurePosixPath(name).name == PureWindowsPath(name.replace(":", "")).name or ":" in name
        )
        if name != category.name:
            assert problems(*names) or unicodedata.normalize("NFC", category.name) == name
