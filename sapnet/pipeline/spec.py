"""The specification of a run: the fields of JOB.json, or the options of `sapnet train`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from sapnet.config import DEFAULT_PROPOSALS
from sapnet.errors import InvalidConfig
from sapnet.types import PointSet, Subset

PATHS = ("points", "workdir", "proposal_store", "truth", "backbone_weights", "initial_model")


@dataclass(frozen=True)
class RunSpec:
    """The specification of a run: the fields of JOB.json (docs/architecture.md).

    Attributes:
        points: a file that declares the sizes of its images, or what such a file holds.
        initial_model: a file that `read_model` takes, to go on from in place of `backbone_weights`.
        subsets: "train", "val" or "test" by image id, in place of those that `points` has: images
            of "val" are validated on, those of "test" are measured at the end. Where none is of
            "val", a share of the images without a subset is held out (`train.hold_out`).
        max_bad_images: share of the images that may fail, see `FailedImages`.
        reserve_bytes: of free space on the work folder's disk, below which the run ends with
            DiskFull.
        own_folder: whether the work folder is this one run's for good, as a job's is: where another
            release has begun it with other settings, it begins anew there.
        proposal_files: bags that other processes have made (`sapnet.pipeline.shards`).
        failed_images: entries of the images that failed there.
        max_processes: that may share the training (`sapnet.pipeline.launch`); None is one a device.
    """

    points: Path | PointSet
    image_paths: dict[int, Path]
    workdir: Path
    proposal_store: Path
    truth: Path | None = None
    method: str = "sapnet++"
    preset: str = "cpu"
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    proposals: dict[str, Any] = field(default_factory=lambda: {"kind": DEFAULT_PROPOSALS})
    backbone_weights: Path | None = None
    initial_model: Path | None = None
    subsets: dict[int, Subset] = field(default_factory=dict)
    max_bad_images: float = 0.05
    reserve_bytes: int = 0
    max_processes: int | None = None
    own_folder: bool = False
    proposal_files: tuple[Path, ...] = ()
    failed_images: tuple[dict[str, Any], ...] = ()

    @classmethod
    def read(cls, path: Path) -> "RunSpec":
        """Read JOB.json. InvalidConfig names what is missing or unknown."""
        try:
            data = dict(json.loads(path.read_text()))
            for name in PATHS:
                if data.get(name) is not None:
                    data[name] = Path(data[name])
            images = data.pop("image_paths")
            paths = {int(key): Path(value) for key, value in images.items()}
            subsets = {int(key): value for key, value in data.pop("subsets", {}).items()}
            files = tuple(Path(path) for path in data.pop("proposal_files", ()))
            failed = tuple(data.pop("failed_images", ()))
            if wrong := sorted(set(map(str, subsets.values())) - set(get_args(Subset))):
                raise InvalidConfig(f"{path.name}: subsets are train, val and test, not {wrong}")
            return cls(
                image_paths=paths,
                subsets=subsets,
                proposal_files=files,
                failed_images=failed,
                **data,
            )
        except KeyError as error:
            raise InvalidConfig(f"{path.name}: {error} is missing") from error
        except (OSError, AttributeError, TypeError, ValueError) as error:
            raise InvalidConfig(f"{path.name}: {error}") from error
