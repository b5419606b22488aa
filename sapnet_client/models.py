"""Trained models: their predictions, their files, and names that move from one to the next."""

import base64
import io
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from sapnet_client.calls import Ref, id_of, read
from sapnet_client.errors import ChangedMeanwhile
from sapnet_client.exports import Exports
from sapnet_client.types import Alias, Job, Model, PredictedImage, Prediction
from sapnet_client.wire import Call

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
ImageSource = int | str | Path | bytes | Any
"""The id of an image in a data set; a file; an address, as https://… or s3://…; the bytes of a
file; an array (height, width, 3) of uint8, or (height, width) of numbers; or a Pillow image. With
`dataset`, a text is a file name there. Results are in its pixels as they are stored: an EXIF
orientation is not applied."""


class Models(Exports):
    """The client's methods for models and predictions."""

    async def predict(
        self,
        model: Ref,
        image: ImageSource,
        *,
        dataset: Ref | None = None,
        score: float | None = None,
        tiles: str | int | None = None,
        mirror: bool = False,
    ) -> list[Prediction]:
        """Return the instances in an image.

        Args:
            model: it, its id, or an alias.
            dataset: whose image an id or a file name means; by default the model's own.
            score: confidence threshold, 0.1 by default.
            tiles: "auto" (the default) cuts an image that is much larger than those of the training
                into overlapping tiles, "off" none; or a tile's side in pixels.
            mirror: predict the mirror image too: objects in both count more; twice the time.
        """
        options = {"score": score, "tiles": tiles, "mirror": mirror or None}
        call = _call(model, image, dataset, options, "application/json")
        answer = read(list[Prediction], (await self._send(call)).body)
        return [self._bound(prediction) for prediction in answer]

    async def overlay(
        self,
        model: Ref,
        image: ImageSource,
        *,
        dataset: Ref | None = None,
        score: float | None = None,
        tiles: str | int | None = None,
        mirror: bool = False,
    ) -> bytes:
        """Return the image with its instances drawn on it, as a PNG.

        Args:
            score: confidence threshold, 0.3 by default.
            tiles: as for `predict`.
            mirror: as for `predict`.
        """
        options = {"score": score, "tiles": tiles, "mirror": mirror or None}
        return (await self._send(_call(model, image, dataset, options, "image/png"))).body

    async def predict_many(
        self,
        model: Ref,
        images: Iterable[ImageSource] | None = None,
        *,
        dataset: Ref | None = None,
        score: float | None = None,
        tiles: str | int | None = None,
        mirror: bool = False,
    ) -> AsyncGenerator[PredictedImage, None]:
        """Yield the instances in many images, by a job, in their order.

        An image that cannot be read has an `error`, and the others are predicted all the same.
        Images that are sent go as one body; for more than a hundred megabytes name addresses or
        make a data set.

        Args:
            images: as for `predict`; None is all of the `dataset`.
            tiles: as for `predict`.
            mirror: as for `predict`.
        """
        body = {
            "model": id_of(model),
            "images": None if images is None else [_listed(image) for image in images],
            "dataset": None if dataset is None else id_of(dataset),
            "score": score,
            "tiles": tiles,
            "mirror": mirror or None,
        }
        given = {name: value for name, value in body.items() if value is not None}
        headers = {"Prefer": "respond-async"}
        job = await self._post(Job, "/predict", given, headers=headers)
        await self.wait(job)
        path = f"/jobs/{job.id}/predictions"
        async with aclosing(self._pages(PredictedImage, path, "predictions")) as pages:
            async for prediction in pages:
                yield prediction

    async def label(
        self,
        model: Ref,
        *,
        dataset: Ref | None = None,
        images: Iterable[int] | None = None,
        score: float | None = None,
    ) -> Job:
        """Let a model label images of a data set; returns the job at once, `wait` waits for it.

        Its masks are reviewed as those of a training: `review`, `accept`, `accept_from` and the
        rest; `corrections` takes the accepted ones into the next version of the data set.

        Args:
            model: it, its id, or an alias.
            dataset: by default the model's own.
            images: ids; by default all images without annotations.
            score: confidence threshold; by default the model's own, else 0.1.
        """
        asked = {
            "model": id_of(model),
            "dataset_id": None if dataset is None else id_of(dataset),
            "images": None if images is None else list(images),
            "score": score,
        }
        wanted = {name: value for name, value in asked.items() if value is not None}
        return await self._post(Job, "/jobs/label", wanted)

    def models(self) -> AsyncGenerator[Model, None]:
        """Yield all models, the newest first."""
        return self._pages(Model, "/models", "models")

    async def import_model(self, path: str | Path, *, name: str | None = None) -> Model:
        """Send a model that was trained elsewhere, and wait until it is read.

        Args:
            path: model.pt or .safetensors of a service, a SOLOv2 of mmdetection, or the state dict
                of a backbone.
            name: for people; the file's own by default.

        Raises:
            Invalid: the file is unsafe, damaged or too large.
            JobFailed: it holds no model that is known; says why.
        """
        form = {"file_upload": await self.upload(path)} | ({"name": name} if name else {})
        job = await self.wait(await self._post(Job, "/models", form=form))
        return await self.model(job.model_id or "")

    async def delete_model(self, model: Ref) -> None:
        """Delete a model that was imported.

        Raises:
            Conflict: it was trained here, a job needs it, or it has an alias.
        """
        await self._send(Call("DELETE", f"/models/{id_of(model)}"))

    async def model(self, model: Ref) -> Model:
        """Look a model up by its id, or by an alias."""
        return await self._get(Model, f"/models/{id_of(model)}")

    async def download_model(self, model: Ref, to: str | Path = ".", *, format: str = "pt") -> Path:
        """Download a model's file.

        Args:
            to: a folder, or the file.
            format: pt, safetensors or onnx, which is made first where it was not made yet.
        """
        path = f"/models/{id_of(model)}"
        if format == "onnx":
            await self.wait(await self._post(Job, f"{path}/onnx"))
        files = {"pt": "checkpoint", "safetensors": "weights", "onnx": "onnx"}
        if format not in files:
            raise ValueError(f"format {format!r}: there are {', '.join(files)}")
        return await self._download(f"{path}/{files[format]}", to, f"model.{format}")

    async def curves(self, model: Ref) -> bytes:
        """Return precision against recall as a PNG, where truth was given."""
        call = Call("GET", f"/models/{id_of(model)}/curves.png", again=True)
        return (await self._send(call)).body

    def aliases(self) -> AsyncGenerator[Alias, None]:
        """Yield all aliases, by name."""
        return self._pages(Alias, "/models/aliases", "aliases")

    async def alias(self, name: str) -> Alias:
        """Look an alias up."""
        return await self._get(Alias, f"/models/aliases/{name}")

    async def set_alias(self, name: str, model: Ref, *, expected: Alias | None = None) -> Alias:
        """Let a name stand for a model, wherever one is named; it is made or moved.

        Args:
            expected: move it only if it is still this one.

        Raises:
            ChangedMeanwhile: it is not.
        """
        headers = {"If-Match": "*" if expected is None else f'"{expected.revision}"'}
        path, body = f"/models/aliases/{name}", {"model": id_of(model)}
        if expected is None:
            with suppress(ChangedMeanwhile):  # it is there already
                made = Call("PUT", path, json=body, headers={"If-None-Match": "*"})
                return read(Alias, (await self._send(made)).body)
        moved = Call("PUT", path, json=body, headers=headers, again=expected is None)
        return read(Alias, (await self._send(moved)).body)

    async def delete_alias(self, name: str) -> None:
        """Delete an alias. The model itself stays."""
        call = Call("DELETE", f"/models/aliases/{name}", headers={"If-Match": "*"})
        await self._send(call)


def _call(
    model: Ref,
    image: ImageSource,
    dataset: Ref | None,
    options: dict[str, Any],
    accept: str,
) -> Call:
    headers, wanted = {"Accept": accept}, {"model": id_of(model), **options}
    if isinstance(image, int) or (dataset is not None and isinstance(image, str)):
        of = None if dataset is None else id_of(dataset)
        wanted |= {"image": image, "dataset": of}
        return Call("GET", "/predict", wanted, headers, again=True)
    if _is_address(image):
        given = {name: value for name, value in wanted.items() if value is not None}
        return Call("POST", "/predict", headers=headers, json={**given, "url": image}, again=True)
    name, file = _file(image)
    form = {name: str(value) for name, value in wanted.items() if value is not None}
    parts = (("file", name, file),)
    return Call("POST", "/predict", headers=headers, form=form, parts=parts, again=True)


def _is_address(image: Any) -> bool:
    return isinstance(image, str) and image.startswith(("https://", "http://", "s3://"))


def _listed(image: Any) -> Any:
    """One of many, in JSON."""
    if isinstance(image, int) or _is_address(image):
        return image
    _, file = _file(image)
    raw = file.read_bytes() if isinstance(file, Path) else file
    return {"image": base64.b64encode(raw).decode()}


def _file(image: Any) -> tuple[str, Path | bytes]:
    if isinstance(image, str | Path):
        return Path(image).name, Path(image)
    if isinstance(image, bytes):
        return "image", image
    from PIL import Image

    pil_image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    kind = "PNG" if pil_image.mode in _PNG_MODES else "TIFF"  # the service converts, as in training
    pil_image.save(buffer, kind)
    return f"image.{kind.lower()}", buffer.getvalue()
