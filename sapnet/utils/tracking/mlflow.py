"""MLflow: a run with its parameters, figures, files and model."""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sapnet.utils.tracking.base import Ending, RunInfo, Scalar

EXPERIMENT = "sapnet"
KEY = "sapnet.run"
LOADER = "sapnet.segmenters.mlflow_model"
"""Named, not imported: MLflow imports it where the model is loaded."""
_LONGEST_VALUE = 500
_BATCH = 500
_STATES = {"failed": "FAILED", "cancelled": "KILLED"}
# A server that is away must not hold a tracker for minutes; the worker tries again later.
_CALM = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MlflowRun:
    """A run at $MLFLOW_TRACKING_URI, or in a database in the folder, where that is not set.

    It is found again by its key, so that none is made twice.
    """

    def __init__(self, info: RunInfo) -> None:
        for name, value in _CALM.items():
            os.environ.setdefault(name, value)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            info.folder.mkdir(parents=True, exist_ok=True)
            path = (info.folder / "mlflow.db").resolve()
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{path}"
        import mlflow

        self._uri = os.environ["MLFLOW_TRACKING_URI"]
        mlflow.set_tracking_uri(self._uri)
        self._client = mlflow.MlflowClient()
        self._experiment = self._experiment_id(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT), info.folder
        )
        self.run_id = info.run_id or self._existing(info.key) or self._new(info)
        self._log_params(info.params)

    @property
    def url(self) -> str | None:
        """Where the server shows the run, without credentials."""
        parts = urlsplit(self._uri)
        if parts.scheme not in ("http", "https"):
            return None
        host = parts.netloc.rpartition("@")[2]
        base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        return f"{base}/#/experiments/{self._experiment}/runs/{self.run_id}"

    def reached(self) -> Mapping[str, int]:
        """Return nothing: figures that are sent again, with their time and step, are kept once."""
        return {}

    def log(self, scalars: Sequence[Scalar]) -> None:
        """Send figures."""
        from mlflow.entities import Metric

        metrics = [Metric(s.name, s.value, int(s.time * 1000), s.step) for s in scalars]
        for begin in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[begin : begin + _BATCH])

    def finish(self, ending: Ending) -> None:
        """Send final figures and files, with the model, and end the run."""
        run = self._client.get_run(self.run_id)
        if run.info.status != "RUNNING":
            return
        self._log_params(ending.params)
        self.log([Scalar(f"final/{n}", v, 0, ending.time) for n, v in ending.figures.items()])
        for name, path in ending.files.items():
            if name != "model.pt":
                self._client.log_artifact(self.run_id, str(path))
        if (model := ending.files.get("model.pt")) is not None:
            self._log_model(model)
        status = _STATES.get(ending.state, "FINISHED")
        self._client.set_terminated(self.run_id, status, int(ending.time * 1000))

    def close(self) -> None:
        """Do nothing: each call is on its own."""

    def _experiment_id(self, name: str, folder: Path) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        # A server says itself where artifacts go; a database of our own has them beside it.
        local = self._uri.startswith("sqlite:")
        artifacts = (folder / "mlflow-artifacts").resolve().as_uri() if local else None
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # somebody else was quicker
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return str(experiment.experiment_id)

    def _existing(self, key: str) -> str | None:
        runs = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{key}'")
        return runs[0].info.run_id if runs else None

    def _new(self, info: RunInfo) -> str:
        run = self._client.create_run(self._experiment, tags={KEY: info.key}, run_name=info.name)
        return str(run.info.run_id)

    def _log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        present = self._client.get_run(self.run_id).data.params if params else {}
        new = [Param(n, v[:_LONGEST_VALUE]) for n, v in params.items() if n not in present]
        if new:
            self._client.log_batch(self.run_id, params=new)

    def _log_model(self, path: Path) -> None:
        """As a model of the flavour python_function, which takes an image and gives a table."""
        import mlflow

        with mlflow.start_run(run_id=self.run_id):
            mlflow.pyfunc.log_model(
                name="model",
                loader_module=LOADER,
                data_path=str(path),
                signature=_signature(),
                pip_requirements=[f"sapnet-service[service]=={version('sapnet-service')}"],
            )


def _signature() -> Any:
    """An RGB image (H, W, 3) of uint8 in; a row for each object out."""
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    image = TensorSpec(numpy.dtype(numpy.uint8), (-1, -1, 3), "image")
    numbers = ("score", "x", "y", "width", "height")
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.long, "category_id"),
        *(ColSpec(DataType.double, name) for name in numbers),
        ColSpec(DataType.string, "segmentation"),
    ]
    return ModelSignature(inputs=Schema([image]), outputs=Schema(columns))
