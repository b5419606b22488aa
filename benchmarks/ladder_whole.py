"""Rungs end to end: `sapnet run` itself with each rung's settings. Slow; meant for a GPU."""

import json
from collections.abc import Sequence
from pathlib import Path

from ladder_data import DataSet
from ladder_picks import Row
from ladder_rungs import Stand

from sapnet.data.samples import ImageRecord
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec


class EndToEnd:
    """Makes the pseudo-masks of one rung after the other, each from nothing."""

    def __init__(
        self,
        data: DataSet,
        records: Sequence[ImageRecord],
        *,
        preset: str,
        seed: int,
        weights: Path | None,
        work: Path,
    ) -> None:
        """work: a folder for the runs. All kinds of proposals go in as masks that are given."""
        self.data, self.preset, self.seed = data, preset, seed
        self.weights, self.work = weights, work
        self.document = {
            str(bag.annotation_id): [
                {"segmentation": mask, "score": float(score)}
                for mask, score in zip(bag.masks, bag.confidence, strict=True)
            ]
            for record in records
            for bag in record.bags
        }

    def __call__(self, stand: Stand) -> list[Row]:
        """The delivered pseudo-masks, scored by their quality."""
        spec = RunSpec(
            points=self.data.folder / "points.json",
            image_paths=self.data.paths,
            workdir=self.work / stand.rung.method,
            proposal_store=self.work / "proposals",
            preset=self.preset,
            overrides=stand.settings,
            seed=self.seed,
            proposals={"kind": "given", "document": self.document},
            backbone_weights=self.weights,
        )
        Run(spec, lambda event: None, lambda: False)()
        lines = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [{**row, "score": row["quality"]} for row in rows]
