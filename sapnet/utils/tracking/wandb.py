"""Weights & Biases, offline where $WANDB_MODE does not say otherwise: `wandb sync` sends it."""

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sapnet.utils.tracking.base import Ending, RunInfo, Scalar

PROJECT = "sapnet"


class WandbRun:
    """A run in the folder. One that goes on is a further part of the same run."""

    def __init__(self, info: RunInfo) -> None:
        import wandb

        info.folder.mkdir(parents=True, exist_ok=True)
        self.run_id = info.run_id or info.key
        self._series: set[str] = set()
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.run_id,
            name=info.name,
            dir=str(info.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            config=dict(info.params),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )

    @property
    def url(self) -> str | None:
        """Where the server shows the run; None offline."""
        return None if self._run.offline else str(self._run.url)

    def reached(self) -> Mapping[str, int]:
        """Return nothing: the files cannot be asked."""
        return {}

    def log(self, scalars: Sequence[Scalar]) -> None:
        """Write figures, those of a step together."""
        for (series, step), group in groupby(scalars, lambda s: (s.name.partition("/")[0], s.step)):
            if series not in self._series:
                self._series.add(series)
                self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
            self._run.log({f"{series}/step": step, **{s.name: s.value for s in group}})

    def finish(self, ending: Ending) -> None:
        """Write final figures and the files, and end the run."""
        import wandb

        self._run.config.update(dict(ending.params), allow_val_change=True)
        self._run.summary.update({f"final/{n}": v for n, v in ending.figures.items()})
        if ending.files:
            artifact = wandb.Artifact(f"run-{self.run_id}", type="model")
            for name, path in ending.files.items():
                artifact.add_file(str(path), name=name)
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if ending.succeeded else 1)

    def close(self) -> None:
        """End this part of the run."""
        self._run.finish(exit_code=0)
