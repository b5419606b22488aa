"""The stream of pieces against the standard decoder, whatever the text and however it is cut."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sapnet.data.annotations import json_stream as stream
from sapnet.data.annotations.coco import check_truth, read_points, read_truth
from sapnet.data.annotations.json_stream import Unreadable, line_and_column, pieces

TEXTS = st.text(max_size=8) | st.sampled_from(['"', "\\", '\\"', "{", "]", "},{", "\\\\"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def small_blocks() -> Iterator[None]:
    """So small that nearly everything is cut somewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BLOCK", 7)
        patch.setattr(stream, "_NEAR", 3)
        yield


def joined(text: bytes, skip: str | None = None) -> dict[str, Any]:
    """The object, put together again from its pieces."""
    found: dict[str, Any] = {}
    for piece in pieces(io.BytesIO(text), lambda name: name == skip):
        value = json.loads(piece.text)
        if piece.listed:
            assert piece.first == (piece.key not in found)
            found.setdefault(piece.key, []).extend(value)
        else:
            found[piece.key] = value
        if not (piece.key == skip and piece.listed):
            empty = piece.text == b"[]"  # there may be spaces between
            added = piece.listed and not empty
            inner = b"[" if empty else piece.text[1:-1] if added else piece.text
            at = piece.offset + (1 if added else 0)
            assert text[at : at + len(inner)] == inner, "the offset is its place"
    return found


def test_an_empty_list_with_a_space_has_its_place() -> None:
    assert joined(b'{"a": [ ], "b": [\n\n]}') == {"a": [], "b": []}


@pytest.mark.slow
@given(
    tree=st.dictionaries(TEXTS, VALUES, max_size=4),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_any_object_comes_back_whole(tree: Any, indent: int | None, ascii_only: bool) -> None:
    dumped = json.dumps(tree, indent=indent, ensure_ascii=ascii_only)
    text = dumped.encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is no UTF-8
    assert joined(text) == tree
    assert joined(b"\xef\xbb\xbf" + text) == tree


@pytest.mark.slow
@example(tree={"a": [{"0": None, '"': {"\\\\": None, '\\"': None}}]}, at=30, byte=ord('"'))
@given(
    tree=st.dictionaries(st.sampled_from("ab"), st.lists(VALUES, max_size=3), max_size=2),
    at=st.integers(0, 200),
    byte=st.sampled_from([*list(b'{}[],:"\\ 1x'), None]),
)
def test_a_spoiled_object_is_refused_where_json_refuses_it(
    tree: Any, at: int, byte: int | None
) -> None:
    """A byte replaced, or the text cut off there."""
    text = bytearray(json.dumps(tree), "ascii")
    at %= len(text)
    text[at:] = b"" if byte is None else bytes([byte]) + text[at + 1 :]
    try:
        expected = json.loads(text, object_pairs_hook=Named)
    except ValueError:
        expected = None
    if isinstance(expected, Named) and expected.repeated:
        expected = None  # of names within members, the last counts, as everywhere
    try:
        found = joined(bytes(text))
    except (ValueError, Unreadable):
        found = None
    if isinstance(expected, dict):
        assert found == expected
    else:
        assert found is None


class Named(dict[str, Any]):
    """An object, and whether one of its names stands there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = len(self) < len(pairs)


def test_a_skipped_list_is_known_to_be_there() -> None:
    text = b'{"a": [{"x": [1]}, {"y": "]"}], "b": 3, "c": []}'
    assert joined(text, skip="a") == {"a": [], "b": 3, "c": []}
    assert joined(text, skip="b") == {"a": [{"x": [1]}, {"y": "]"}], "b": 3, "c": []}


def test_a_value_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_VALUE", 100)
    for text in (b'{"a": [{"x": "' + b"y" * 300, b'{"a": {"x": "' + b"y" * 300 + b'"}}'):
        with pytest.raises(Unreadable, match="more than 100 bytes"):
            joined(text)


@pytest.mark.slow
def test_too_many_members() -> None:
    text = json.dumps(dict.fromkeys(map(str, range(10_001)), 0)).encode()
    with pytest.raises(Unreadable, match="10,000 members"):
        joined(text)


def test_lines_and_columns() -> None:
    text = "äb\n\nöß{x\n".encode()
    assert [line_and_column(text, n) for n in (0, 2, 4, 5, 9, 12)] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 1),
        (3, 3),
        (4, 1),
    ]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"id": 9,', '"id" 9,'), ('{"id": 0, "name"', '{"id": 0 "name"'), ('"ö.png"', '"ö.png" 3')],
)
def test_the_place_of_a_mistake_in_a_long_file(
    document: dict[str, Any], right: str, wrong: str
) -> None:
    document["images"][0]["file_name"] = "ö.png"
    text = json.dumps(document, ensure_ascii=False).replace("}, ", "},\n\n ")
    assert read_points(text.encode()).issues == []
    text = text.replace(right, wrong)
    (issue,) = read_points(text.encode()).issues
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    assert f"line {caught.value.lineno}, column {caught.value.colno}:" in issue.problem


def test_the_order_of_the_lists_does_not_matter(document: dict[str, Any], read: Any) -> None:
    turned = dict(reversed(document.items()))
    assert next(iter(turned)) == "annotations"
    assert read(turned).points == read(document).points
    turned["annotations"][0]["point"] = [64, 0]
    assert [i.pointer for i in read(turned).issues] == ["/annotations/0/point"]


def test_a_list_that_comes_twice(document: dict[str, Any]) -> None:
    text = json.dumps(document).replace('"categories"', '"images"', 1).encode()
    assert "a second time" in read_points(text).issues[-1].problem


def test_truth_is_checked_as_it_is_read(tmp_path: Path) -> None:
    square = [[0, 0, 5, 0, 5, 5]]
    truth = {
        "images": [{"id": 3, "width": 12, "height": 10}],
        "categories": [{"id": 0, "name": "x"}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 0, "segmentation": square} for n in (7, 4, 9)
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert check_truth(path).tolist() == [7, 4, 9]
    assert [a["id"] for a in read_truth(path)["annotations"]] == [7, 4, 9]
    truth["annotations"] = []
    path.write_text(json.dumps(truth))
    assert check_truth(path).tolist() == []


def test_addresses_of_images(document: dict[str, Any], read: Any) -> None:
    document["images"][0] |= {"coco_url": "http://x/a.png", "url": "http://y/a.png"}
    document["images"][1] |= {"coco_url": None, "url": "http://y/b.png"}
    document["images"].append({"id": 8, "file_name": "c.png", "url": 3})
    assert read(document).addresses == ("http://x/a.png", "http://y/b.png", None)
