"""Exports: the masks of a job in the format of your choice."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from sapnet_client.calls import Ref, id_of
from sapnet_client.review import Review
from sapnet_client.types import Export
from sapnet_client.wire import Call


class Exports(Review):
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
        """Make an export, wait for it, download it. format: coco, coco-polygons, yolo-seg, voc,
        png, label-studio or cvat. images: with the pictures. simplify: pixels that a polygon may
        leave the outline by. What was left out, and what the format loses, `wait_for_export` says
        of an export that `create_export` began."""
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
        body: dict[str, Any] = {"format": format, "min_quality": min_quality}
        body |= {"images": images, "simplify": simplify}
        return await self._post(Export, f"/jobs/{id_of(job)}/exports", body)

    async def delete_export(self, export: Ref) -> None:
        await self._send(Call("DELETE", f"/exports/{id_of(export)}"))

    async def get_export(self, export: Ref) -> Export:
        return await self._get(Export, f"/exports/{id_of(export)}")

    def exports(self, job: Ref) -> AsyncGenerator[Export, None]:
        return self._pages(Export, f"/jobs/{id_of(job)}/exports", "exports")

    async def wait_for_export(self, export: Ref) -> Export:
        """It, once it can be downloaded. Raises JobFailed."""
        await self.wait(id_of(export))
        return await self.get_export(export)

    async def download_export(self, export: Ref, to: str | Path = ".") -> Path:
        return await self._download(f"/exports/{id_of(export)}/file", to, "export")
