"""What the references are made of, on inputs of their own; and that everything is described."""

import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from json_schema import bounds_of, example_of, table, type_of
from links import rewrite
from rest_reference import pages
from settings_reference import meanings_of, service_meanings

from sapnet.config import schema
from sapnet.config.resolve import bounds_in_words, resolve_config
from sapnet.errors import InvalidConfig

ROOT = Path(__file__).resolve().parents[2]
STAGES = [made for made in get_type_hints(schema.Config).values() if is_dataclass(made)]


@pytest.mark.parametrize("made", STAGES, ids=lambda made: made.__name__)
def test_every_setting_of_a_training_has_a_meaning(made: type) -> None:
    described, meanings = meanings_of(made)
    assert described
    assert set(meanings) == set(made.__dataclass_fields__)  # type: ignore[attr-defined]
    assert all(meanings.values())


def test_every_setting_of_the_service_has_a_meaning() -> None:
    left = [name for name, meaning in service_meanings().items() if not meaning]
    assert not left, "give them a docstring in app/settings.py"


@pytest.mark.parametrize(
    ("name", "words", "beyond"),
    [
        ("train.epochs", "> 0, ≤ 10,000", 0),
        ("train.epochs", "> 0, ≤ 10,000", 10_001),
        ("data.min_scale", "> 0, ≤ 1", 1.5),
        ("mil.alpha", "≥ 0", -0.1),
    ],
)
def test_the_bounds_are_those_that_are_checked(name: str, words: str, beyond: float) -> None:
    assert bounds_in_words(name) == words
    with pytest.raises(InvalidConfig):
        resolve_config(overrides={name: beyond})


@pytest.mark.parametrize(
    ("described", "words", "bounds"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer", "≥ 1, ≤ 9"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null", ""),
        ({"type": "array", "items": {"$ref": "#/x/Point"}}, "list of Point", ""),
        ({"enum": ["a", "b"]}, '`"a"`, `"b"`', ""),
        ({"const": "choose"}, '`"choose"`', ""),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number", ""),
        ({"prefixItems": [{"type": "number"}] * 2, "type": "array"}, "list of 2 (number)", ""),
        (
            {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}},
            "list of number",
            "each > 0",
        ),
        ({}, "any value", ""),
    ],
)
def test_a_schema_in_words(described: dict[str, object], words: str, bounds: str) -> None:
    assert (type_of(described), bounds_of(described)) == (words, bounds)


def test_an_example_follows_references_and_ends_in_a_circle() -> None:
    schemas = {
        "Node": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "examples": ["root"]},
                "children": {"type": "array", "items": {"$ref": "#/c/Node"}},
                "count": {"type": "integer", "exclusiveMinimum": 4},
            },
        }
    }
    top = {"$ref": "#/c/Node"}
    assert example_of(top, schemas) == {"name": "root", "children": [{}], "count": 5}
    assert example_of(top, schemas, required_only=True) == {"name": "root"}


def test_a_table_has_no_empty_column_and_keeps_bars_apart() -> None:
    made = table(["a", "b", "c"], [["1", "", "x|y"], ["2", "", "z\nz"]])
    assert made.splitlines() == ["| a | c |", "| --- | --- |", r"| 1 | x\|y |", "| 2 | z z |"]


def test_an_operation_becomes_a_section() -> None:
    refused = {"$ref": "#/components/responses/Refused401"}
    document = {
        "info": {"title": "T", "version": "1", "description": "D."},
        "paths": {
            "/cats/{cat_id}": {
                "put": {
                    "tags": ["cats"],
                    "description": "Name a cat. Once only.\n\nMore.",
                    "security": [{"key": ["write"]}],
                    "parameters": [
                        {
                            "name": "cat_id",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "integer"},
                        }
                    ],
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/c/s/CatIn"}}}
                    },
                    "responses": {"204": {"description": "Named"}, "401": refused},
                }
            }
        },
        "components": {
            "schemas": {
                "CatIn": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string", "minLength": 1, "examples": ["Tom"]}},
                },
                "Problem": {"type": "object", "properties": {"title": {"type": "string"}}},
            },
            "responses": {"Refused401": {"description": "A key is needed"}},
            "securitySchemes": {"key": {"description": "A key."}},
        },
    }
    made = pages(document)
    assert set(made) == {"index.md", "cats.md", "schemas.md"}
    assert "[`PUT /cats/{cat_id}`](cats.md#put-cats-cat-id) | Name a cat. |" in made["index.md"]
    section = made["cats.md"]
    assert "Needs a key of the scope `write`." in section
    assert "| `name` | string | yes | ≥ 1 characters |" in section
    assert """-d '{"name": "Tom"}' "$U/cats/$CAT_ID\"""" in section
    assert "Refused with `401`" in section


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("README.md", "[a](docs/sam.md#which)", "[a](sam.md#which)"),
        ("README.md", "![a](docs/images/gallery.jpg)", "![a](images/gallery.jpg)"),
        ("docs/sam.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/decisions/0041-boxes.md", "[a](../log.md)", "[a](../log.md)"),
        (
            "docs/how-to/gpu.md",
            "[a](../../examples/walkthrough.py)",
            "[a](../source/examples/walkthrough.py)",
        ),
        ("CONTRIBUTING.md", "[a](docs/decisions/)", "[a](decisions/index.md)"),
        ("README.md", "[a](https://example.org/docs/x.md)", "[a](https://example.org/docs/x.md)"),
        ("README.md", "`[a](docs/x.md)` [b](#here)", "`[a](docs/x.md)` [b](#here)"),
        ("docs/sam.md", "[the folder](../examples)", "the folder"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(
    page: str, link: str, becomes: str
) -> None:
    assert rewrite(link, page, ROOT, lambda file: None) == becomes


def test_a_link_to_nothing_is_noticed() -> None:
    with pytest.raises(FileNotFoundError, match=re.escape("../gone.py")):
        rewrite("[a](../gone.py)", "docs/sam.md", ROOT, lambda file: None)


def test_the_index_names_every_integration() -> None:
    folder = ROOT / "docs" / "integrations"
    index = (folder / "index.md").read_text()
    for path in folder.glob("*.md"):
        assert path.name == "index.md" or f"]({path.name}):" in index, path.name
