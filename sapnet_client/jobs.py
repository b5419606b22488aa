"""Jobs: train, follow, wait, and take what came of it."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2

from sapnet_client.calls import Ref, id_of, read
from sapnet_client.errors import JobFailed, Problem, StillRunning, Unreachable
from sapnet_client.transfers import Transfers
from sapnet_client.types import Event, Job, Mask, Metrics, Shard, TrainingPlan
from sapnet_client.wire import Call

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
SILENCE = 45.0
"""Seconds without a word after which a stream of events is dead: the service speaks every 15."""
BREAKS = 3
"""Streams in a row that bring no event, before events are given up and the job is polled."""
POLL = 1.0


class Jobs(Transfers):
    """The client's methods for jobs."""

    async def train(
        self,
        dataset: Ref,
        *,
        method: str = "sapnet++",
        preset: str = "auto",
        seed: int = 0,
        overrides: Mapping[str, Any] | None = None,
        proposals: str | Mapping[str, Any] | None = None,
        truth: Mapping[str, Any] | None = None,
        from_model: Ref | None = None,
        webhook: Mapping[str, Any] | None = None,
    ) -> Job:
        """Start a training; `wait` for it.

        Args:
            preset: "auto" chooses by the service's machine, the images and the weights there.
            overrides: settings by name: {"train.epochs": 6}.
            proposals: "hierarchy", "hierarchy+prompter", "sam", or a document with settings.
            truth: COCO instances, for metrics alone.
            from_model: a model whose weights the training begins with.
            webhook: where the job's events are posted.
        """
        body = _train_request(
            dataset,
            method=method,
            preset=preset,
            seed=seed,
            overrides=dict(overrides or {}),
            proposals=proposals,
            truth=truth,
            from_model=from_model,
            webhook=webhook,
        )
        return await self._post(Job, "/jobs/train", body)

    async def plan_training(self, dataset: Ref, **options: Any) -> TrainingPlan:
        """Check a training, and say with which preset and how long; nothing is stored.

        Args:
            options: those of `train`.
        """
        body = _train_request(dataset, **options)
        call = Call("POST", "/jobs/train", {"dry_run": "true"}, json=body, again=True)
        return read(TrainingPlan, (await self._send(call)).body)

    async def job(self, job: Ref) -> Job:
        """Look a job up.

        Raises:
            NotFound: there is none of this id.
        """
        return await self._get(Job, f"/jobs/{id_of(job)}")

    def jobs(
        self, *, state: str | None = None, dataset: Ref | None = None
    ) -> AsyncGenerator[Job, None]:
        """Yield jobs, the newest first."""
        of = None if dataset is None else id_of(dataset)
        return self._pages(Job, "/jobs", "jobs", state=state, dataset_id=of)

    def shards(self, job: Ref) -> AsyncGenerator[Shard, None]:
        """Yield the parts of a job's stages that many workers share; none of a small job."""
        return self._pages(Shard, f"/jobs/{id_of(job)}/shards", "shards")

    async def cancel(self, job: Ref) -> Job:
        """Cancel a job; a running one stops within seconds.

        Raises:
            Conflict: it is over already.
        """
        call = Call("POST", f"/jobs/{id_of(job)}/cancel", again=True)
        return self._bound(read(Job, (await self._send(call)).body))

    async def wait(self, job: Ref, *, timeout: float | None = None, check: bool = True) -> Job:
        """Wait until a job is over; it survives restarts of the service.

        It listens to the job's events; where these cannot be had (a proxy that keeps streams to
        itself) it asks again and again.

        Args:
            timeout: seconds.
            check: whether a job that did not succeed raises.

        Raises:
            JobFailed: it did not succeed.
            StillRunning: it is not over in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._reporting(f"job {id_of(job)[:8]}") as report_progress:
            try:
                async with aclosing(self._events(id_of(job), 0, until)) as events:
                    async for event in events:
                        _report(report_progress, event)
            except (httpx2.TransportError, Unreachable, Problem):
                pass  # what is wrong with the job itself, the next line says
            current = await self.job(job)
            while not current.over:
                stage = current.stage or current.state
                report_progress(current.progress, 1.0, stage=stage, note=losses(current.losses))
                if until is not None and time.monotonic() >= until:
                    raise StillRunning(f"The job {current.id} is still {current.state}.")
                await self._wire.sleep(POLL)
                current = await self.job(job)
            report_progress(current.progress, 1.0, stage=current.stage or current.state)
        if check and not current.succeeded:
            raise JobFailed(current, await self.logs(current, tail=15))
        return current

    def events(self, job: Ref, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield what happened to a job and what happens, until its end.

        It comes back after breaks and restarts, and misses and repeats nothing.

        Args:
            after: the id of the last event that is not wanted again.
        """
        return self._events(id_of(job), after, None)

    async def _events(
        self, job_id: str, after: int, until: float | None
    ) -> AsyncGenerator[Event, None]:
        breaks = 0
        while until is None or until > time.monotonic():
            headers = {"Accept": SSE, "Last-Event-ID": str(after)}
            silence = SILENCE if until is None else min(SILENCE, until - time.monotonic())
            call = Call(
                "GET",
                f"/jobs/{job_id}/events",
                headers=headers,
                again=True,
                timeout=max(silence, 0.01),
            )
            try:
                async with self._open(call) as answer:
                    if answer.status == 204:
                        return
                    async with aclosing(answer.events()) as stream:
                        async for sent in stream:
                            if not sent.data:
                                continue
                            event = read(Event, sent.data.encode())
                            after, breaks = event.id, 0
                            yield event
                            if event.type == "end":
                                return
            except httpx2.TransportError:
                breaks += 1
                if breaks >= BREAKS:
                    raise
            await self._wire.sleep(0.2 * (1 + breaks))

    async def logs(self, job: Ref, *, tail: int | None = None) -> str:
        """Return what the trainer wrote so far.

        Args:
            tail: how many of its last lines; None for all.
        """
        call = Call("GET", f"/jobs/{id_of(job)}/logs", {"tail": tail}, again=True)
        return (await self._send(call)).body.decode(errors="replace")

    async def metrics(self, job: Ref) -> Metrics:
        """Return the metrics of a training that succeeded."""
        return await self._get(Metrics, f"/jobs/{id_of(job)}/metrics")

    async def pseudo_masks(
        self,
        job: Ref,
        *,
        image_id: int | None = None,
        category_id: int | None = None,
        min_quality: float | None = None,
        detail: bool = False,
    ) -> AsyncGenerator[Mask, None]:
        """Yield one mask per annotation, by annotation id, as they come, in little memory.

        Args:
            min_quality: masks below it are left out.
            detail: whether to add the mask before and after refinement, and the other candidates.
        """
        params: dict[str, Any] = {"image_id": image_id, "category_id": category_id}
        params |= {"min_quality": min_quality, "detail": "true" if detail else None}
        path, headers = f"/jobs/{id_of(job)}/pseudo-masks", {"Accept": NDJSON}
        last: int | None = None
        breaks = 0
        while True:
            try:
                call = Call("GET", path, params, headers, again=True)
                async with self._open(call) as answer, aclosing(answer.lines()) as lines:
                    async for line in lines:
                        mask = self._bound(read(Mask, line.encode()), id_of(job))
                        if last is None or mask.id > last:  # else it came before a break
                            last, breaks = mask.id, 0
                            yield mask
                return
            except httpx2.TransportError:
                breaks += 1
                if breaks > BREAKS:
                    raise
                await self._wire.sleep(0.2 * breaks)

    async def gallery(self, job: Ref) -> bytes:
        """Return a PNG of a few images: proposals, and the masks selected, refined, predicted."""
        return (await self._send(Call("GET", f"/jobs/{id_of(job)}/gallery", again=True))).body

    async def report(self, job: Ref) -> dict[str, Any]:
        """Return all that the training says about itself."""
        return await self._get(dict[str, Any], f"/jobs/{id_of(job)}/report")

    async def download_report(self, job: Ref, to: str | Path = ".") -> Path:
        """Download report.html: one page for people, with metrics, curves and drawn masks."""
        return await self._download(f"/jobs/{id_of(job)}/report.html", to, "report.html")

    async def download_checkpoint(self, job: Ref, to: str | Path = ".") -> Path:
        """Download model.pt, into a folder or as the named file; it goes on after a break."""
        return await self._download(f"/jobs/{id_of(job)}/checkpoint", to, "checkpoint")


def _train_request(
    dataset: Ref, *, from_model: Ref | None = None, **options: Any
) -> dict[str, Any]:
    """The body of a request for a training; what is None is left to the service."""
    model = None if from_model is None else id_of(from_model)
    body = {"dataset_id": id_of(dataset), "from_model": model, **options}
    return {name: value for name, value in body.items() if value is not None}


def _report(report_progress: Callable[..., None], event: Event) -> None:
    data = event.data
    if event.type == "progress":
        report_progress(
            data.get("progress"),
            1.0,
            stage=data.get("stage") or "",
            note=losses(data.get("losses")),
        )
    elif event.type == "stage" and data.get("status") == "started":
        report_progress(None, 1.0, stage=data["stage"])
    elif event.type in ("created", "state"):
        report_progress(None, 1.0, stage=data["state"])


def losses(values: Mapping[str, float | None] | None) -> str:
    """Return losses by name in a few words."""
    return " ".join(f"{n} {v:.2f}" for n, v in (values or {}).items() if v is not None)
