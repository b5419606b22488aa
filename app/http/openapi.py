"""What /openapi.json adds to FastAPI's own: how every error looks, since all are problems."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp

from app.auth.access import AccessTable, open_to_all
from app.auth.openapi import describe
from app.errors import MEDIA_TYPE
from app.http.middleware import HeadAsGet, Observed

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class ValidationIssueOut(BaseModel):
    """One thing that is wrong with a request."""

    part: str = Field(description="of the form, or body, query, path, header")
    pointer: str = Field(description='RFC 6901, within the part; "" is the whole of it')
    detail: str = Field(description="what is wrong")
    hint: str = Field(description="how to fix it")


class Problem(BaseModel):
    """RFC 9457. Some kinds have more members, such as the `state` of a job."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/invalid-input",
                    "title": "The input is not usable",
                    "status": 422,
                    "detail": "Nothing was kept; 1 fault: there is no image with id 9",
                    "instance": "/datasets",
                    "errors": [
                        {
                            "part": "annotations",
                            "pointer": "/annotations/0/image_id",
                            "detail": "there is no image with id 9",
                            "hint": "correct the id, or list this image",
                        }
                    ],
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ValidationIssueOut] = Field([], description="everything that is wrong, in order")


class Api(FastAPI):
    """FastAPI, with its errors described as they are, and every answer observed.

    Also the 500 that the framework's outermost middleware gives.
    """

    def setup(self) -> None:
        """Add the framework's own routes; the API's description is open to all."""
        super().setup()
        for route in self.routes:
            if isinstance(route, Route) and route.path == self.openapi_url:
                open_to_all(route.endpoint)

    def build_middleware_stack(self) -> ASGIApp:
        """Wrap the framework's middleware in what observes every answer."""
        # HeadAsGet is the outer one: a HEAD is counted as the GET it becomes.
        return HeadAsGet(Observed(super().build_middleware_stack()))

    def openapi(self) -> dict[str, Any]:
        """Return the API's description, with problems as the body of every error."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            model = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**model.pop("$defs"), "Problem": model}
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            answer = {
                "description": "What went wrong, and how to fix it",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
            _whole_bounds(document)
            for methods in document["paths"].values():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = answer
            describe(document, AccessTable(self.routes))
        assert self.openapi_schema is not None
        return self.openapi_schema

    def methods_of(self, path: str) -> list[str]:
        """Return what may be done with a path, in the order of the alphabet.

        A path that is written out (/jobs/train) is not one of a template (/jobs/{job_id}) as well.
        """
        paths = self.openapi()["paths"]
        templates = [path] if path in paths else [t for t in paths if _matches(t, path)]
        methods = {method.upper() for template in templates for method in paths[template]}
        return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _matches(template: str, path: str) -> bool:
    return compile_path(template)[0].match(path) is not None


def _whole_bounds(node: Any) -> None:
    """FastAPI writes bounds as floats; above 2^53 a reader takes them for others than they are."""
    if isinstance(node, list):
        for item in node:
            _whole_bounds(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in _BOUNDS and isinstance(value, float) and value.is_integer():
                node[name] = int(value)
            else:
                _whole_bounds(value)
