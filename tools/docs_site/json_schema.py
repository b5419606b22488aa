"""JSON Schema in words, for the tables of the references, and example values."""

import json
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]
_NUMBER = {"integer": "integer", "number": "number", "boolean": "true or false"}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "≥ {} characters",
    "maxLength": "≤ {} characters",
    "minItems": "≥ {} entries",
    "maxItems": "≤ {} entries",
    "pattern": "matches `{}`",
}
_EXAMPLES = {
    "date-time": "2026-01-31T12:00:00Z",
    "uri": "https://example.org/",
    "binary": "(bytes)",
}


def name_of(reference: str) -> str:
    """Return the last part of a `$ref`."""
    return reference.rsplit("/", 1)[1]


def type_of(schema: Schema, link: Callable[[str], str] = name_of) -> str:
    """Say a schema's type.

    Args:
        link: makes text of a `$ref`.
    """
    if "$ref" in schema:
        return link(schema["$ref"])
    for many in ("anyOf", "oneOf"):
        if many in schema:
            kinds = dict.fromkeys(type_of(one, link) for one in schema[many])
            return " or ".join(kinds)
    if "allOf" in schema:
        return " and ".join(type_of(one, link) for one in schema["allOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            parts = [type_of(one, link) for one in schema["prefixItems"]]
            same = len(set(parts)) == 1
            return f"list of {len(parts)} ({parts[0] if same else ', '.join(parts)})"
        case "array":
            return f"list of {type_of(schema.get('items', {}), link)}"
        case "object":
            values = schema.get("additionalProperties")
            inner = type_of(values, link) if isinstance(values, Mapping) and values else "any value"
            return f"object of {inner}"
        case "string":
            form = schema.get("format")
            return f"string ({form})" if form else "string"
        case "null":
            return "null"
        case None:
            return "any value"
        case kind:
            return _NUMBER.get(str(kind), str(kind))


def bounds_of(schema: Schema) -> str:
    """Say which values of its type a schema allows; empty where all are."""
    parts = [words.format(schema[key]) for key, words in _BOUNDS.items() if key in schema]
    for many in ("anyOf", "oneOf"):
        parts += filter(None, (bounds_of(one) for one in schema.get(many, [])))
    inner = schema.get("items")
    if isinstance(inner, Mapping) and (within := bounds_of(inner)):
        parts.append(f"each {within}")
    return ", ".join(dict.fromkeys(parts))


def example_of(
    schema: Schema, schemas: Mapping[str, Schema], *, required_only: bool = False
) -> Any:
    """Return a value that a schema describes: its own example, a default, or a plain one.

    Args:
        schemas: what `$ref` leads to, by name.
        required_only: leave out of the outermost object what has a default.
    """
    return _example(schema, schemas, required_only, ())


def _example(
    schema: Schema, schemas: Mapping[str, Schema], required_only: bool, above: tuple[str, ...]
) -> Any:
    if "$ref" in schema:
        name = name_of(schema["$ref"])
        if name in above:
            return {}
        return _example(schemas[name], schemas, required_only, (*above, name))
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("example", "const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return _example(schema[many][0], schemas, required_only, above)
    match schema.get("type"):
        case "object":
            names = schema.get("properties", {})
            if required_only:
                names = {k: v for k, v in names.items() if k in schema.get("required", [])}
            return {name: _example(one, schemas, False, above) for name, one in names.items()}
        case "array" if "prefixItems" in schema:
            return [_example(one, schemas, False, above) for one in schema["prefixItems"]]
        case "array":
            item = _example(schema.get("items", {}), schemas, False, above)
            return [item] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return low or 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _EXAMPLES.get(schema.get("format", ""), "…")


def cell(text: str) -> str:
    """Return text as it may stand in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, without the columns in which no row has anything."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = [[head[i] for i in kept], ["---"] * len(kept)]
    lines += [[cell(row[i]) for i in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
