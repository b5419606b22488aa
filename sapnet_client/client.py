"""`Client` and `AsyncClient`: the same methods, with and without an event loop."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from sapnet_client.calls import address, authorization
from sapnet_client.models import Models
from sapnet_client.progress import Show, wanted
from sapnet_client.wire import AsyncWire, BlockingWire, each, run

P = ParamSpec("P")
T = TypeVar("T")
SECONDS = 300.0
PATIENCE = 60.0


class AsyncClient(Models):
    """The service, for programs with an event loop. `Client` says what the arguments are."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        progress: bool | Show | None = None,
        timeout: float = SECONDS,
        patience: float = PATIENCE,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        if http is None:
            limit = httpx2.Timeout(timeout, connect=10.0)
            http = httpx2.AsyncClient(base_url=address(url), timeout=limit)
        http.headers.update(authorization(key))
        super().__init__(AsyncWire(http), patience=patience, show=wanted(progress))

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _blocking(
    method: Callable[Concatenate[Models, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._core, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Models, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return each(method(self._core, *args, **kwargs))

    return call


class Client:
    """The service, from a plain program.

    Args:
        url: default $SAPNET_URL, or this machine's.
        key: default $SAPNET_KEY.
        progress: bars (default: where stderr is a terminal), or a function that is called with a
            `Progress`.
        timeout: seconds of silence after which an answer is given up.
        patience: seconds for which a request that may be sent again is tried where the service is
            away.
        http: a client of your own, with proxies or certificates.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        progress: bool | Show | None = None,
        timeout: float = SECONDS,
        patience: float = PATIENCE,
        http: httpx2.Client | None = None,
    ) -> None:
        if http is None:
            limit = httpx2.Timeout(timeout, connect=10.0)
            http = httpx2.Client(base_url=address(url), timeout=limit)
        http.headers.update(authorization(key))
        self._core = Models(BlockingWire(http), patience=patience, show=wanted(progress))

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._core.url

    def close(self) -> None:
        """Close all connections."""
        run(self._core._wire.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    create_dataset = _blocking(Models.create_dataset)
    ready = _blocking(Models.ready)
    dataset = _blocking(Models.dataset)
    datasets = _iterating(Models.datasets)
    images = _iterating(Models.images)
    annotations = _iterating(Models.annotations)
    image_bytes = _blocking(Models.image_bytes)
    delete_dataset = _blocking(Models.delete_dataset)
    upload = _blocking(Models.upload)

    train = _blocking(Models.train)
    plan_training = _blocking(Models.plan_training)
    job = _blocking(Models.job)
    jobs = _iterating(Models.jobs)
    cancel = _blocking(Models.cancel)
    wait = _blocking(Models.wait)
    events = _iterating(Models.events)
    logs = _blocking(Models.logs)
    metrics = _blocking(Models.metrics)
    pseudo_masks = _iterating(Models.pseudo_masks)
    gallery = _blocking(Models.gallery)
    report = _blocking(Models.report)
    download_report = _blocking(Models.download_report)
    download_checkpoint = _blocking(Models.download_checkpoint)

    review = _iterating(Models.review)
    review_counts = _blocking(Models.review_counts)
    mask = _blocking(Models.mask)
    accept = _blocking(Models.accept)
    reject = _blocking(Models.reject)
    reopen = _blocking(Models.reopen)
    choose = _blocking(Models.choose)
    correct = _blocking(Models.correct)
    suggest = _blocking(Models.suggest)
    corrections = _blocking(Models.corrections)
    compare = _blocking(Models.compare)

    export = _blocking(Models.export)
    create_export = _blocking(Models.create_export)
    get_export = _blocking(Models.get_export)
    exports = _iterating(Models.exports)
    wait_for_export = _blocking(Models.wait_for_export)
    delete_export = _blocking(Models.delete_export)
    download_export = _blocking(Models.download_export)

    predict = _blocking(Models.predict)
    predict_many = _iterating(Models.predict_many)
    overlay = _blocking(Models.overlay)
    models = _iterating(Models.models)
    model = _blocking(Models.model)
    import_model = _blocking(Models.import_model)
    delete_model = _blocking(Models.delete_model)
    download_model = _blocking(Models.download_model)
    curves = _blocking(Models.curves)
    aliases = _iterating(Models.aliases)
    alias = _blocking(Models.alias)
    set_alias = _blocking(Models.set_alias)
    delete_alias = _blocking(Models.delete_alias)
