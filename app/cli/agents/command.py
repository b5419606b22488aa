"""The command `sapnet-service mcp`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app.cli.agents.folders import Folders, NotAllowed
from sapnet_client import AsyncClient, Progress

Show = Callable[[Progress], None]


def mcp(
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="that may be read, repeatable; without one, nothing is"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="for exports and models; without it nothing is written")
    ] = None,
    allow_delete: Annotated[
        bool, typer.Option("--allow-delete", help="with tools that delete data sets and models")
    ] = False,
    http: Annotated[
        bool,
        typer.Option("--http", help="streamable HTTP on loopback in place of stdin and stdout"),
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="of --http")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(
            help="that requests of --http must bring [SAPNET_MCP_TOKEN]",
            envvar="SAPNET_MCP_TOKEN",
            show_envvar=False,
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="the service's address [SAPNET_URL]")] = None,
    key: Annotated[str | None, typer.Option(help="an API key [SAPNET_KEY]")] = None,
) -> None:
    """Tools of a running service for agents, by the Model Context Protocol."""
    from app.cli.agents.server import make_server

    try:
        folders = Folders.of(folder or [], out)
    except NotAllowed as error:
        raise typer.BadParameter(str(error), param_hint="--folder") from None
    connect = partial(_connect, url, key)
    server = make_server(connect, folders, allow_delete=allow_delete, token=token if http else None)
    if not http:
        server.run()
        return
    asked = "with a token" if token else "for all programs of this machine: --token asks for one"
    typer.echo(f"MCP is at http://127.0.0.1:{port}/mcp, {asked}  (Ctrl-C stops it)", err=True)
    server.run("streamable-http", host="127.0.0.1", port=port)


def _connect(url: str | None, key: str | None, show: Show | None) -> AsyncClient:
    return AsyncClient(url, key=key, progress=show or False)
