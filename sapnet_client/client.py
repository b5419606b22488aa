"""`Client` and `AsyncClient`: the same methods, with and without an event loop."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from sapnet_client.calls import address, authorization
from sapnet_client.hub import Hub
from sapnet_client.progress import Show, wanted
from sapnet_client.wire import AsyncWire, BlockingWire, each, run

P = ParamSpec("P")
T = TypeVar("T")
SECONDS = 300.0
PATIENCE = 60.0


class AsyncClient(Hub):
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
    method: Callable[Concatenate[Hub, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._core, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Hub, P], AsyncGenerator[T, None]],
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
        self._core = Hub(BlockingWire(http), patience=patience, show=wanted(progress))
        self._core._owner = self

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

    create_dataset = _blocking(Hub.create_dataset)
    ready = _blocking(Hub.ready)
    dataset = _blocking(Hub.dataset)
    datasets = _iterating(Hub.datasets)
    images = _iterating(Hub.images)
    annotations = _iterating(Hub.annotations)
    image_bytes = _blocking(Hub.image_bytes)
    create_version = _blocking(Hub.create_version)
    statistics = _blocking(Hub.statistics)
    next_images = _iterating(Hub.next_images)
    delete_dataset = _blocking(Hub.delete_dataset)
    upload = _blocking(Hub.upload)

    train = _blocking(Hub.train)
    plan_training = _blocking(Hub.plan_training)
    job = _blocking(Hub.job)
    jobs = _iterating(Hub.jobs)
    shards = _iterating(Hub.shards)
    cancel = _blocking(Hub.cancel)
    wait = _blocking(Hub.wait)
    events = _iterating(Hub.events)
    logs = _blocking(Hub.logs)
    metrics = _blocking(Hub.metrics)
    pseudo_masks = _iterating(Hub.pseudo_masks)
    gallery = _blocking(Hub.gallery)
    report = _blocking(Hub.report)
    download_report = _blocking(Hub.download_report)
    download_checkpoint = _blocking(Hub.download_checkpoint)

    review = _iterating(Hub.review)
    review_counts = _blocking(Hub.review_counts)
    mask = _blocking(Hub.mask)
    accept = _blocking(Hub.accept)
    reject = _blocking(Hub.reject)
    reopen = _blocking(Hub.reopen)
    choose = _blocking(Hub.choose)
    correct = _blocking(Hub.correct)
    accept_from = _blocking(Hub.accept_from)
    rules = _blocking(Hub.rules)
    take_rule_back = _blocking(Hub.take_rule_back)
    suggest = _blocking(Hub.suggest)
    corrections = _blocking(Hub.corrections)
    compare = _blocking(Hub.compare)

    export = _blocking(Hub.export)
    create_export = _blocking(Hub.create_export)
    get_export = _blocking(Hub.get_export)
    exports = _iterating(Hub.exports)
    wait_for_export = _blocking(Hub.wait_for_export)
    delete_export = _blocking(Hub.delete_export)
    download_export = _blocking(Hub.download_export)

    answers_at_once = True
    """What it has returned may ask it for more while it is shown."""
    preview_of = _blocking(Hub.preview_of)
    to_numpy = _blocking(Hub.to_numpy)
    to_pandas = _blocking(Hub.to_pandas)
    to_supervision = _blocking(Hub.to_supervision)
    to_fiftyone = _blocking(Hub.to_fiftyone)
    fiftyone_samples = _iterating(Hub.fiftyone_samples)
    dataset_from_fiftyone = _blocking(Hub.dataset_from_fiftyone)

    predict = _blocking(Hub.predict)
    predict_many = _iterating(Hub.predict_many)
    label = _blocking(Hub.label)
    overlay = _blocking(Hub.overlay)
    models = _iterating(Hub.models)
    model = _blocking(Hub.model)
    import_model = _blocking(Hub.import_model)
    push_model = _blocking(Hub.push_model)
    pull_model = _blocking(Hub.pull_model)
    push_dataset = _blocking(Hub.push_dataset)
    pull_dataset = _blocking(Hub.pull_dataset)
    delete_model = _blocking(Hub.delete_model)
    download_model = _blocking(Hub.download_model)
    curves = _blocking(Hub.curves)
    aliases = _iterating(Hub.aliases)
    alias = _blocking(Hub.alias)
    set_alias = _blocking(Hub.set_alias)
    delete_alias = _blocking(Hub.delete_alias)
