"""Models and data sets on the Hugging Face hub: laid out as the hub's readers expect, and back.

A model is model.safetensors, config.json and a card. A data set is an `imagefolder`: for each
subset a folder of images with metadata.jsonl, and the masks of an image as a PNG of numbers.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sapnet_client import hub_cards
from sapnet_client.calls import Ref
from sapnet_client.errors import SapnetError
from sapnet_client.extras import HUB, needed
from sapnet_client.imagefolder import read_folder, write_folder
from sapnet_client.models import Models
from sapnet_client.types import Dataset, Job, Model

Kind = Literal["model", "dataset"]
WEIGHTS = "model.safetensors"


class HubError(SapnetError):
    """The hub refused something, or cannot be reached."""


class Hub(Models):
    """The client's methods for the hub."""

    async def push_model(
        self,
        model: Ref,
        repo: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        licence: str | None = None,
    ) -> str:
        """Send a model to the Hugging Face hub: safetensors, config.json and a card.

        Args:
            model: it, its id, or an alias.
            repo: such as anna/cells; it is made where it is not there.
            token: default HF_TOKEN, or that of `hf auth login`.
            private: whether a repository that is made is private.
            licence: of the model, as the hub names it: apache-2.0. None leaves it out.

        Returns:
            The repository's address.

        Raises:
            HubError: the hub refuses it, or cannot be reached.
            MissingPackage: huggingface_hub is not installed.
        """
        needed("huggingface_hub", HUB)
        result = await self.model(model)
        job = await self._job_of(result)
        dataset = await self.dataset(result.dataset_id) if result.dataset_id else None
        metrics = await self._metrics_of(job)
        with tempfile.TemporaryDirectory(prefix="sapnet-hub-") as folder:
            root = Path(folder)
            await self.download_model(result, root / WEIGHTS, format="safetensors")
            (root / "config.json").write_text(json.dumps(hub_cards.config(result), indent=1))
            card = hub_cards.model_card(repo, result, job, dataset, metrics, licence)
            (root / "README.md").write_text(card)
            return await self._upload(root, repo, "model", token, private)

    async def pull_model(
        self, repo: str, *, token: str | None = None, revision: str | None = None
    ) -> Model:
        """Bring a model from the Hugging Face hub into the service.

        Args:
            repo, token: see `push_model`.
            revision: a branch, a tag or a commit.

        Raises:
            HubError: the hub refuses it, or has no model of this kind there.
            MissingPackage: huggingface_hub is not installed.
        """
        with tempfile.TemporaryDirectory(prefix="sapnet-hub-") as folder:
            names = (WEIGHTS, "config.json")
            root = await self._fetch(repo, "model", token, revision, Path(folder), names)
            if not (root / WEIGHTS).is_file():
                raise HubError(f"{repo} has no {WEIGHTS}: it is no model that was pushed from here")
            return await self.import_model(root / WEIGHTS, name=repo)

    async def push_dataset(
        self,
        dataset: Ref,
        repo: str,
        *,
        job: Ref | None = None,
        token: str | None = None,
        private: bool | None = None,
        licence: str | None = None,
    ) -> str:
        """Send a data set to the Hugging Face hub, as an `imagefolder` with masks and a card.

        Args:
            job: whose masks go with it; without one those that were confirmed.
            repo, token, private, licence: see `push_model`.

        Returns:
            The repository's address.

        Raises:
            HubError: the hub refuses it, or cannot be reached.
            MissingPackage: huggingface_hub is not installed.
        """
        needed("huggingface_hub", HUB)
        result = await self.dataset(dataset)
        done = None if job is None else await self.job(job)
        with tempfile.TemporaryDirectory(prefix="sapnet-hub-") as folder:
            root = Path(folder)
            subsets = await write_folder(self, result, root, done)
            card = hub_cards.dataset_card(repo, result, done, subsets, licence)
            (root / "README.md").write_text(card)
            return await self._upload(root, repo, "dataset", token, private)

    async def pull_dataset(
        self,
        repo: str,
        *,
        name: str | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> Dataset:
        """Bring a data set that was pushed from a service back into one.

        Args:
            name: by default the repository's.
            repo, token, revision: see `pull_model`.

        Raises:
            HubError, NotAFolder: the hub refuses it, or it is of another layout.
            MissingPackage: huggingface_hub is not installed.
        """
        with tempfile.TemporaryDirectory(prefix="sapnet-hub-") as folder:
            root = await self._fetch(repo, "dataset", token, revision, Path(folder), None)
            document, images = read_folder(root)
            return await self.create_dataset(images, document, name=name or repo)

    async def _job_of(self, model: Model) -> Job | None:
        try:
            return await self.job(model.job_id)
        except SapnetError:  # the model is worth having without it
            return None

    async def _metrics_of(self, job: Job | None) -> dict[str, Any]:
        if job is None or job.kind != "train":
            return {}
        metrics = await self.metrics(job)
        parts = {"validation": metrics.validation, "test": metrics.test}
        parts |= {"model": metrics.model, "pseudo_masks": metrics.pseudo_masks}
        return {name: part for name, part in parts.items() if part}

    async def _upload(
        self, root: Path, repo: str, kind: Kind, token: str | None, private: bool | None
    ) -> str:
        def send() -> str:
            with _hub(token) as api:
                made = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
                message = f"Push a {kind} from sapnet-service"
                options = {"repo_type": kind, "commit_message": message}
                api.upload_folder(repo_id=made.repo_id, folder_path=root, **options)
            return str(made)

        return await self._offload(send)

    async def _fetch(
        self,
        repo: str,
        kind: Kind,
        token: str | None,
        revision: str | None,
        folder: Path,
        names: Sequence[str] | None,
    ) -> Path:
        def fetch() -> Path:
            options = {"repo_type": kind, "revision": revision, "local_dir": folder}
            with _hub(token) as api:
                api.snapshot_download(repo, allow_patterns=names and list(names), **options)
            return folder

        return await self._offload(fetch)


@contextmanager
def _hub(token: str | None) -> Iterator[Any]:
    """The hub's own client; what the hub refuses comes in a line.

    Raises:
        HubError: it refuses, or cannot be reached.
    """
    hub = needed("huggingface_hub", HUB)
    import httpx2  # which it sends its requests by

    errors = needed("huggingface_hub.errors", HUB)
    refusals = (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        httpx2.HTTPError,
        OSError,
        ValueError,
    )
    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        yield hub.HfApi(endpoint=endpoint, token=token, library_name="sapnet")
    except refusals as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise HubError("The hub: " + " ".join(lines[:3])) from error
