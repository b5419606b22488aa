"""The REST reference: Markdown pages of the API's OpenAPI document."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from json_schema import bounds_of, example_of, name_of, table, type_of

METHODS = ("get", "post", "put", "patch", "delete", "options")
LONGEST_EXAMPLE = 3000
_SOURCE = """
import json
from app.main import create_app
from app.settings import Settings
print(json.dumps(create_app(Settings(_env_file=None)).openapi()))
"""
Document = dict[str, Any]


def openapi(root: Path) -> Document:
    """Return the API's description, from a process of its own: the API sets up logging."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SAPNET_")}
    done = subprocess.run(
        [sys.executable, "-c", _SOURCE],
        cwd=root,
        env={**env, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the API's description cannot be had:\n{done.stderr}")
    document: Document = json.loads(done.stdout.splitlines()[-1])
    return document


def pages(document: Document) -> dict[str, str]:
    """Return the reference's pages by file name: an index, one for each tag, the schemas."""
    tags: dict[str, list[tuple[str, str, Document]]] = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if operation := methods.get(method):
                tags.setdefault(operation.get("tags", ["other"])[0], []).append(
                    (method.upper(), path, operation)
                )
    schemas = document["components"]["schemas"]
    result = {"index.md": _index(document, tags)}
    for tag, operations in tags.items():
        parts = [_operation(*operation, schemas) for operation in operations]
        result[f"{tag}.md"] = f"# REST: {tag}\n\n" + "\n".join(parts)
    result["schemas.md"] = _schemas(schemas)
    return result


def anchor(method: str, path: str) -> str:
    """Return the id of an operation's heading."""
    return re.sub(r"[^a-z0-9]+", "-", f"{method} {path}".lower()).strip("-")


def summary(operation: Document) -> str:
    """Return the first sentence of what an operation does."""
    first = (operation.get("description") or operation.get("summary") or "").split("\n\n")[0]
    return re.split(r"(?<=\w[.:;]) ", " ".join(first.split()))[0].rstrip(":;")


def _index(document: Document, tags: dict[str, list[tuple[str, str, Document]]]) -> str:
    info, components = document["info"], document["components"]
    key = next(iter(components["securitySchemes"].values()))
    refusals = [
        [f"`{name.removeprefix('Refused')}`", response["description"]]
        for name, response in sorted(components["responses"].items())
    ]
    rows = [
        [f"[`{method} {path}`]({tag}.md#{anchor(method, path)})", summary(operation)]
        for tag, operations in tags.items()
        for method, path, operation in operations
    ]
    problem = json.dumps(example_of(components["schemas"]["Problem"], components["schemas"]))
    return "\n".join(
        [
            "# REST reference\n",
            f"{info['title']} {info['version']}. {info['description']} Made from the OpenAPI "
            "document that a running service has at `/openapi.json`; at `/docs` there it can be "
            "tried. In the examples `$U` is the service's address.\n",
            f"**Keys.** `Authorization: Bearer …`: {key['description']}\n",
            "## Errors\n",
            "Every error is one `application/problem+json` "
            "([Problem](schemas.md#problem)), which lists everything that is wrong:\n",
            f"```json\n{json.dumps(json.loads(problem), indent=2, ensure_ascii=False)}\n```\n",
            table(["status", "meaning, wherever it is named"], refusals),
            "## Operations\n",
            table(["operation", "what it does"], rows),
        ]
    )


def _operation(method: str, path: str, operation: Document, schemas: Document) -> str:
    parts = [f"## `{method} {path}` {{ #{anchor(method, path)} }}\n"]
    parts.append((operation.get("description") or operation.get("summary") or "") + "\n")
    scopes = [
        scope for one in operation.get("security", []) for names in one.values() for scope in names
    ]
    needed = f"a key of the scope `{scopes[0]}`" if scopes else "no key"
    parts.append(f"Needs {needed}.\n")
    if parameters := operation.get("parameters"):
        rows = [
            [
                f"`{one['name']}`",
                one["in"],
                type_of(one["schema"], _link),
                "yes" if one.get("required") else "",
                _value(one["schema"].get("default")),
                bounds_of(one["schema"]),
                one.get("description") or one["schema"].get("description", ""),
            ]
            for one in parameters
        ]
        parts.append("**Parameters**\n")
        head = ["name", "in", "type", "required", "default", "range", "meaning"]
        parts.append(table(head, rows))
    if body := operation.get("requestBody"):
        parts += _body(body, schemas)
    parts.append("**Answers**\n")
    parts.append(table(["status", "body", "meaning", "headers"], list(_answers(operation))))
    refusals = [
        f"`{status}`" for status in operation["responses"] if _is_refusal(operation, status)
    ]
    if refusals:
        parts.append(f"Refused with {', '.join(refusals)}: [errors](index.md#errors).\n")
    parts.append(f"```bash\n{_curl(method, path, operation, schemas)}\n```\n")
    if example := _answer_example(operation, schemas):
        parts.append(f"```json\n{example}\n```\n")
    return "\n".join(parts)


def _body(body: Document, schemas: Document) -> Iterator[str]:
    for media, content in body["content"].items():
        schema = content.get("schema", {})
        target = schemas[name_of(schema["$ref"])] if "$ref" in schema else schema
        named = "" if target is schema and "properties" in schema else type_of(schema, _link)
        yield f"**Body**, `{media}`{': ' if named else ''}{named}\n"
        if target.get("properties"):
            yield _fields(target)


def _fields(schema: Document) -> str:
    required = schema.get("required", [])
    rows = [
        [
            f"`{name}`",
            type_of(one, _link),
            "yes" if name in required else "",
            _value(one.get("default")),
            bounds_of(one),
            one.get("description", ""),
        ]
        for name, one in schema["properties"].items()
    ]
    return table(["field", "type", "required", "default", "range", "meaning"], rows)


def _is_refusal(operation: Document, status: str) -> bool:
    return "$ref" in operation["responses"][status]


def _answers(operation: Document) -> Iterator[list[str]]:
    for status, response in sorted(operation["responses"].items()):
        if _is_refusal(operation, status):
            continue
        kinds = [
            f"{type_of(content.get('schema', {}), _link)}, `{media}`"
            if content.get("schema")
            else f"`{media}`"
            for media, content in response.get("content", {}).items()
        ]
        name = "others" if status == "default" else f"`{status}`"
        headers = ", ".join(f"`{header}`" for header in response.get("headers", {}))
        meaning = response["description"].replace("Successful Response", "")
        yield [name, "; ".join(kinds), meaning, headers]


def _curl(method: str, path: str, operation: Document, schemas: Document) -> str:
    address = re.sub(r"\{(\w+)\}", lambda match: f"${match[1].upper()}", path)
    parameters = [p for p in operation.get("parameters", []) if p.get("required")]
    query = "&".join(
        f"{p['name']}={example_of(p['schema'], schemas)}" for p in parameters if p["in"] == "query"
    )
    parts = ["curl -s" if method == "GET" else f"curl -s -X {method}"]
    parts += [f"-H '{p['name']}: …'" for p in parameters if p["in"] == "header"]
    for media, content in (operation.get("requestBody") or {"content": {}})["content"].items():
        schema = content.get("schema", {})
        if media == "application/json" or media.endswith("+json"):
            example = example_of(schema, schemas, required_only=True)
            parts.append(
                f"-H 'content-type: {media}' -d '{json.dumps(example, ensure_ascii=False)}'"
            )
        elif media == "multipart/form-data":
            target = schemas[name_of(schema["$ref"])] if "$ref" in schema else schema
            fields = target.get("properties", {})
            files = [name for name, one in fields.items() if "binary" in type_of(one)]
            parts += [f"-F {name}=@file" for name in files[:2] or list(fields)[:1]]
        else:
            parts.append(f"-H 'content-type: {media}' --data-binary @file")
        break
    return " ".join([*parts, f'"$U{address}{"?" + query if query else ""}"'])


def _answer_example(operation: Document, schemas: Document) -> str:
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get("application/json", {})
        if status.startswith("2") and content.get("schema"):
            example = content.get("example", example_of(content["schema"], schemas))
            text = json.dumps(example, indent=2, ensure_ascii=False)
            return text if len(text) <= LONGEST_EXAMPLE and example not in ({}, "…", None) else ""
    return ""


def _schemas(schemas: Document) -> str:
    parts = ["# REST: schemas\n", "What bodies are made of.\n"]
    for name, schema in sorted(schemas.items()):
        parts.append(f"## {_title(name)} {{ #{name.lower()} }}\n")
        if schema.get("description"):
            parts.append(schema["description"] + "\n")
        if schema.get("properties"):
            parts.append(_fields(schema))
        elif "properties" not in schema:
            parts.append(f"{type_of(schema, _link)}\n")
    return "\n".join(parts)


def _link(reference: str) -> str:
    name = name_of(reference)
    return f"[{_title(name)}](schemas.md#{name.lower()})"


def _title(name: str) -> str:
    """Return a schema's name; of two of one name FastAPI puts their modules before it."""
    return re.sub(r"^app__(\w+?)__schemas__(\w+)$", r"\2 (\1)", name)


def _value(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"
