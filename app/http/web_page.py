"""The pages for people.

The files of app/web at /web, the page at / for those who prefer HTML, and at /docs the API's,
which is Swagger UI. All of it comes from this service.
"""

import mimetypes
import os
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from app.auth.access import open_to_all

SWAGGER_UI = Path(str(files("fastapi_offline"))) / "static"
WEB = Path(__file__).parents[1] / "web"
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time, and answered with 304
}


class _Files(StaticFiles):
    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def install(app: FastAPI) -> None:
    """Serve the pages' files below /web, and the API's page at /docs."""
    mimetypes.add_type("text/javascript", ".js")  # a module of another type is not run
    app.mount("/web/swagger-ui", open_to_all(_Files(directory=SWAGGER_UI)))
    app.mount("/web", open_to_all(_Files(directory=WEB)))

    app.add_api_route("/docs", _docs, include_in_schema=False)


@open_to_all
def _docs() -> Response:
    return FileResponse(WEB / "docs" / "index.html", headers=HEADERS)


def page() -> Response:
    """The page itself."""
    return FileResponse(WEB / "index.html", headers={**HEADERS, "Vary": "Accept"})
