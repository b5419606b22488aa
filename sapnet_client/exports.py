"""Exports: the masks of a job in the format of your choice."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from sapnet_client.calls import Ref, id_of
from sapnet_client.notebooks import Notebooks
from sapnet_client.types import Export
from sapnet_client.wire import Call


class Exports(Notebooks):
    """The client's methods for exports."""

    async def export(
        self,
        job: Ref,
        format: str = "coco",
        to: str | Path = ".",
        *,
        min_quality: float = 0.0,
        images: bool = False,
        simplify: float = 0.0,
    ) -> Path:
        """Make an export, wait for it, download it.

        What was left out, and what the format loses, is in the report of the export that
        `wait_for_export` returns.

        Args:
            format: coco, coco-polygons, yolo-seg, voc, png, label-studio or cvat.
            to: a folder, or the file.
            min_quality: masks below it are left out.
            images: whether to put the images into the archive.
            simplify: pixels that a polygon may leave the outline by.

        Returns:
            The file.
        """
        made = await self.create_export(
            job, format, min_quality=min_quality, images=images, simplify=simplify
        )
        return await self.download_export(await self.wait_for_export(made), to)

    async def create_export(
        self,
        job: Ref,
        format: str = "coco",
        *,
        min_quality: float = 0.0,
        images: bool = False,
        simplify: float = 0.0,
    ) -> Export:
        """Start an export; `wait_for_export` waits for it. The arguments are those of `export`."""
        body: dict[str, Any] = {"format": format, "min_quality": min_quality}
        body |= {"images": images, "simplify": simplify}
        return await self._post(Export, f"/jobs/{id_of(job)}/exports", body)

    async def delete_export(self, export: Ref) -> None:
        """Delete an export, with its file."""
        await self._send(Call("DELETE", f"/exports/{id_of(export)}"))

    async def get_export(self, export: Ref) -> Export:
        """Look an export up: how far it is, then what it holds."""
        return await self._get(Export, f"/exports/{id_of(export)}")

    def exports(self, job: Ref) -> AsyncGenerator[Export, None]:
        """Yield the exports of a job, the newest first."""
        return self._pages(Export, f"/jobs/{id_of(job)}/exports", "exports")

    async def wait_for_export(self, export: Ref) -> Export:
        """Wait until an export can be downloaded.

        Raises:
            JobFailed: it came to no file.
        """
        await self.wait(id_of(export))
        return await self.get_export(export)

    async def download_export(self, export: Ref, to: str | Path = ".") -> Path:
        """Download an export's file, into a folder or as the file that is named."""
        return await self._download(f"/exports/{id_of(export)}/file", to, "export")
