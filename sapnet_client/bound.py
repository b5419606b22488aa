"""Answers that know the client which has them, and so can ask it for more."""

from typing import Any


class Bound:
    """A base of what the service answers.

    What a client has returned carries that client; with an `AsyncClient` its methods return
    coroutines.
    """

    __slots__ = ("_client", "_job")
    _client: Any
    _job: str | None

    @property
    def job_id_here(self) -> str | None:
        """Id of the job that a mask came with."""
        return getattr(self, "_job", None)

    def bind(self, client: Any, job: str | None = None) -> None:
        """Note who answered.

        Args:
            job: id of the job that a mask is of.
        """
        object.__setattr__(self, "_client", client)  # the types are frozen
        object.__setattr__(self, "_job", job)

    @property
    def client(self) -> Any:
        """The client that has returned this.

        Raises:
            ValueError: none has.
        """
        if (client := getattr(self, "_client", None)) is None:
            raise ValueError(f"this {type(self).__name__} did not come from a client")
        return client

    def _preview(self) -> bytes | None:
        """A preview that only the client has; None where it cannot be asked while this is shown."""
        client: Any = getattr(self, "_client", None)
        result: bytes | None = None
        if getattr(client, "answers_at_once", False):
            result = client.preview_of(self)
        return result


class Drawn(Bound):
    """An object with a mask: a pseudo-mask, or a predicted instance."""

    __slots__ = ()

    def to_numpy(self) -> Any:
        """Return the mask as a boolean array (height, width)."""
        segmentation: Any = self.segmentation  # type: ignore[attr-defined]
        return segmentation.array()

    def to_supervision(self) -> Any:
        """Return `supervision.Detections` with this one object.

        Raises:
            MissingPackage: supervision is not installed.
        """
        from sapnet_client.views import to_supervision

        return to_supervision([self])

    def _repr_html_(self) -> str:
        from sapnet_client.display import mask_html

        return mask_html(self, self._preview())


class Trained(Bound):
    """A job, whose masks its client has."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each mask, see `Client.to_pandas`."""
        return self.client.to_pandas(self)

    def to_numpy(self, image_id: int) -> Any:
        """Return the masks of an image as a boolean array (masks, height, width)."""
        return self.client.to_numpy(self, image_id)

    def to_supervision(self, image_id: int) -> Any:
        """Return `supervision.Detections` of an image, see `Client.to_supervision`."""
        return self.client.to_supervision(self, image_id)

    def to_fiftyone(self, name: str | None = None, **options: Any) -> Any:
        """Return a dataset of FiftyOne, see `Client.to_fiftyone`."""
        return self.client.to_fiftyone(self, name, **options)

    def _repr_html_(self) -> str:
        from sapnet_client.display import job_html

        return job_html(self, self._preview())
