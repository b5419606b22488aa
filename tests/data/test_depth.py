"""How deeply text is nested, whatever is in its strings and however it is cut."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.data.annotations.coco import check_truth, read_points
from sapnet.data.depth import MAX_DEPTH, Depth, parse
from sapnet.errors import InvalidDataset

values = st.recursive(
    st.none() | st.integers() | st.text('"\\[]{}:,a\n', max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[{', max_size=5), inner)
    ),
    max_leaves=20,
)


def deepest(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(deepest, value.values()), default=0)
    return 1 + max(map(deepest, value), default=0) if isinstance(value, list) else 0


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(values, st.integers(1, 7), st.integers(MAX_DEPTH - 8, MAX_DEPTH + 2))
def test_any_value_in_any_parts(value: Any, length: int, levels: int) -> None:
    for _ in range(levels):
        value = [value]
    text = json.dumps(value).encode()
    depth = Depth()
    found = [depth.too_deep(text[i : i + length]) for i in range(0, len(text), length)]
    assert any(found) == (deepest(value) > MAX_DEPTH)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 300, 10_000, 1_000_000])
@pytest.mark.parametrize(("left", "right"), ["[]", ('{"a":', "}")])
def test_parse_refuses_depth_alone(levels: int, left: str, right: str) -> None:
    for text in (left * levels, left * levels + "1" + right * levels):
        for sent in (text, text.encode()):
            with pytest.raises(ValueError):
                parse(sent)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", b"\xff", "1" * 5000])
def test_parse_refuses_what_is_no_json(text: Any) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_parse_reads() -> None:
    value: Any = '[{"\\['
    for _ in range(MAX_DEPTH):
        value = [value]
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps([value[0]]).encode()) == value


@pytest.mark.parametrize("levels", [MAX_DEPTH, 10_000, 2_000_000])
@pytest.mark.parametrize("place", ["member", "field", "image", "categories"])
def test_documents(levels: int, place: str) -> None:
    deep = "[" * levels + "]" * levels
    field, image = (deep if place == name else "[]" for name in ("field", "image"))
    categories = deep if place == "categories" else '[{"id": 1, "name": "x"}]'
    text = (
        f'{{"info": {deep if place == "member" else "1"}, "categories": {categories},'
        f'"images": [{{"id": 1, "file_name": "a", "width": 4, "height": 4, "more": {image}}}],'
        f'"annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "point": [1, 1],'
        f'"more": {field}, "segmentation": [[1, 1, 3, 1, 3, 3]]}}]}}'
    ).encode()
    assert any("nested" in issue.problem for issue in read_points(text).issues)
    with pytest.raises(InvalidDataset, match="nested"):
        check_truth(text)


def test_documents_may_be_nested() -> None:
    deep = "[" * (MAX_DEPTH - 3) + "]" * (MAX_DEPTH - 3)
    text = (
        '{"images": [{"id": 1, "file_name": "a", "width": 4, "height": 4}], '
        '"categories": [{"id": 1, "name": "x"}], "annotations": [{"id": 1, "image_id": 1, '
        f'"category_id": 1, "point": [1, 1], "more": {deep}}}]}}'
    )
    assert not read_points(text.encode()).issues
