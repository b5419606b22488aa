"""Exports: the masks of a job in the format of your choice."""

from collections.abc import AsyncGenerator
from pathlib import Path

from sapnet_client.calls import Ref, id_of
from sapnet_client.errors import SapnetError
from sapnet_client.review import Review
from sapnet_client.types import Export

POLL = 0.3


class Exports(Review):
    async def export(
        self,
        job: Ref,
        format: str = "coco",
        to: str | Path = ".",
        *,
        min_quality: float = 0.0,
        images: bool = False,
    ) -> Path:
        """Make an export, wait for it, download it. format: coco, coco-polygons, yolo-seg, voc,
        png, label-studio or cvat. images: with the pictures. What was left out, and how much a
        format loses, is in the `report` of `create_export` and `wait_for_export`."""
        made = await self.create_export(job, format, min_quality=min_quality, images=images)
        return await self.download_export(await self.wait_for_export(made), to)

    async def create_export(
        self, job: Ref, format: str = "coco", *, min_quality: float = 0.0, images: bool = False
    ) -> Export:
        body = {"format": format, "min_quality": min_quality, "images": images}
        return await self._post(Export, f"/jobs/{id_of(job)}/exports", body)

    async def get_export(self, export: Ref) -> Export:
        return await self._get(Export, f"/exports/{id_of(export)}")

    def exports(self, job: Ref) -> AsyncGenerator[Export, None]:
        return self._pages(Export, f"/jobs/{id_of(job)}/exports", "exports")

    async def wait_for_export(self, export: Ref) -> Export:
        """It, once it can be downloaded."""
        with self._telling(f"export {id_of(export)[:8]}") as tell:
            while not (found := await self.get_export(export)).over:
                tell(found.progress, 1.0, stage=f"export {found.format}")
                await self._wire.sleep(POLL)
            tell(1.0, 1.0, stage=f"export {found.format}")
        if not found.state.startswith("succeeded"):
            raise SapnetError(f"The export {found.id} {found.state}: {found.error}")
        return found

    async def download_export(self, export: Ref, to: str | Path = ".") -> Path:
        return await self._download(f"/exports/{id_of(export)}/file", to, "export")
