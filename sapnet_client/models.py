"""Trained models: what they see in a picture, their files, and names that move from one to the
next."""

import io
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sapnet_client.calls import Ref, id_of, read
from sapnet_client.errors import ChangedMeanwhile
from sapnet_client.exports import Exports
from sapnet_client.types import Alias, Job, Model, Prediction
from sapnet_client.wire import Call

Picture = int | str | Path | bytes | Any
"""The id of an image in a data set; a file; the bytes of one; or an array (height, width, 3) of
uint8, or a Pillow image. With `dataset`, a text is a file name there."""


class Models(Exports):
    async def predict(
        self,
        model: Ref,
        image: Picture,
        *,
        dataset: Ref | None = None,
        score: float | None = None,
    ) -> list[Prediction]:
        """Instances in a picture. model: it, its id, or an alias. dataset: default, for an id of
        an image, the one that the model was trained on. score: least one, 0.1 by default."""
        call = _call(model, image, dataset, score, "application/json")
        return read(list[Prediction], (await self._send(call)).body)

    async def overlay(
        self,
        model: Ref,
        image: Picture,
        *,
        dataset: Ref | None = None,
        score: float | None = None,
    ) -> bytes:
        """The same drawn on the picture, as a PNG. score: 0.3 by default."""
        return (await self._send(_call(model, image, dataset, score, "image/png"))).body

    def models(self) -> AsyncGenerator[Model, None]:
        """The newest first."""
        return self._pages(Model, "/models", "models")

    async def model(self, model: Ref) -> Model:
        return await self._get(Model, f"/models/{id_of(model)}")

    async def download_model(self, model: Ref, to: str | Path = ".", *, format: str = "pt") -> Path:
        """format: pt, safetensors or onnx, which is made first where nobody has asked for it yet.
        to: a folder, or the file."""
        path = f"/models/{id_of(model)}"
        if format == "onnx":
            await self.wait(await self._post(Job, f"{path}/onnx"))
        files = {"pt": "checkpoint", "safetensors": "weights", "onnx": "onnx"}
        if format not in files:
            raise ValueError(f"format {format!r}: there are {', '.join(files)}")
        return await self._download(f"{path}/{files[format]}", to, f"model.{format}")

    async def curves(self, model: Ref) -> bytes:
        """Precision against recall as a PNG, where truth was given."""
        call = Call("GET", f"/models/{id_of(model)}/curves.png", again=True)
        return (await self._send(call)).body

    def aliases(self) -> AsyncGenerator[Alias, None]:
        return self._pages(Alias, "/models/aliases", "aliases")

    async def alias(self, name: str) -> Alias:
        return await self._get(Alias, f"/models/aliases/{name}")

    async def set_alias(self, name: str, model: Ref, *, seen: Alias | None = None) -> Alias:
        """Let a name stand for a model, wherever one is asked for; it is made or moved. seen: move
        it only from there, or raise ChangedMeanwhile."""
        headers = {"If-Match": "*" if seen is None else f'"{seen.revision}"'}
        path, body = f"/models/aliases/{name}", {"model": id_of(model)}
        if seen is None:
            with suppress(ChangedMeanwhile):  # it is there already
                made = Call("PUT", path, json=body, headers={"If-None-Match": "*"})
                return read(Alias, (await self._send(made)).body)
        moved = Call("PUT", path, json=body, headers=headers, again=seen is None)
        return read(Alias, (await self._send(moved)).body)

    async def delete_alias(self, name: str) -> None:
        """The model itself stays."""
        call = Call("DELETE", f"/models/aliases/{name}", headers={"If-Match": "*"})
        await self._send(call)


def _call(
    model: Ref, image: Picture, dataset: Ref | None, score: float | None, accept: str
) -> Call:
    headers, wanted = {"Accept": accept}, {"model": id_of(model), "score": score}
    if isinstance(image, int) or (dataset is not None and isinstance(image, str)):
        of = None if dataset is None else id_of(dataset)
        wanted |= {"image": image, "dataset": of}
        return Call("GET", "/predict", wanted, headers, again=True)
    name, file = _file(image)
    form = {name: str(value) for name, value in wanted.items() if value is not None}
    parts = (("file", name, file),)
    return Call("POST", "/predict", headers=headers, form=form, parts=parts, again=True)


def _file(image: Any) -> tuple[str, Path | bytes]:
    if isinstance(image, str | Path):
        return Path(image).name, Path(image)
    if isinstance(image, bytes):
        return "image", image
    from PIL import Image

    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return "image.png", buffer.getvalue()
