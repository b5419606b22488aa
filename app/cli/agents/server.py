"""The server: which tools there are, what each does to the world, over which transport."""

from collections.abc import Callable
from hmac import compare_digest
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.types import ToolAnnotations
from pydantic import AnyHttpUrl

from app.cli.agents.calls import Connect
from app.cli.agents.data_tools import DataTools
from app.cli.agents.folders import Folders
from app.cli.agents.review_tools import ReviewTools

INSTRUCTIONS = """\
Turns one point per object into instance masks and a trained segmenter.
The way: list_files, create_dataset (a folder of images and their points), estimate_training,
train, wait_for_job, worst_masks, then decide_masks or correct_mask, make_corrected_dataset and
train again with from_model; export_masks, predict. Coordinates are pixels of the image as it is
stored; drawn images have a scale in these pixels along their left and lower sides."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
CREATES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)


class _Secret:
    """Takes one token, which whoever starts the server gives to its clients."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if not compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token=token, client_id="agent", scopes=[])


def make_server(
    connect: Connect, folders: Folders, *, allow_delete: bool = False, token: str | None = None
) -> MCPServer:
    """Make a server with its tools.

    Args:
        connect: gives a client of the service.
        folders: what may be read and written on this machine.
        allow_delete: whether there are tools that delete.
        token: that requests over HTTP must bring; None asks for none.
    """
    from importlib.metadata import version

    data, review = DataTools(connect, folders), ReviewTools(connect, folders)
    local = AuthSettings(issuer_url=AnyHttpUrl("http://127.0.0.1"), resource_server_url=None)
    server = MCPServer(
        "sapnet",
        auth=local if token else None,
        token_verifier=_Secret(token) if token else None,
        title="sapnet-service",
        instructions=INSTRUCTIONS,
        version=version("sapnet-service"),
        log_level="WARNING",
        subscriptions=False,
    )
    groups: list[tuple[ToolAnnotations, list[Callable[..., Any]]]] = [
        (
            READS,
            [
                data.list_files,
                data.show_image,
                data.list_datasets,
                data.list_jobs,
                data.list_models,
                data.estimate_training,
                data.wait_for_job,
                data.job_status,
                review.worst_masks,
                review.show_candidates,
                review.predict,
            ],
        ),
        (
            CREATES,
            [
                data.create_dataset,
                data.train,
                data.export_masks,
                data.download_model,
                review.make_corrected_dataset,
            ],
        ),
        (CHANGES, [data.cancel_job, review.decide_masks, review.correct_mask]),
        (CHANGES, [data.delete_dataset, data.delete_model] if allow_delete else []),
    ]
    for annotations, methods in groups:
        for method in methods:
            server.add_tool(method, annotations=annotations)
    return server
