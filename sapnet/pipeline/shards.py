"""Parts of a run that processes share: each line on stdin is one, its events are lines on stdout.

The process stays between them, so that what is loaded (a network, CUDA) is loaded once. It ends
with its input, and after an error: then another one begins anew. Imports no torch by itself.

{"stage": "plan", "job": JOB.json} answers with `planned`. {"stage": "proposals", ...}, whose other
fields are those of `ProposalShard`, answers with `image` as it turns to each image, with
`image_set_aside` for those that fail, and with `shard_done` once the result is written.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sapnet.data.annotations.coco import load_points
from sapnet.errors import InvalidConfig
from sapnet.pipeline.contract import ExitCode, Stage
from sapnet.pipeline.events import EventSink, ImageBegun, ImageSetAside, Planned, ShardDone
from sapnet.pipeline.execute import failure
from sapnet.pipeline.image_failure import FailedImage, blames_image
from sapnet.proposals import build_generator
from sapnet.proposals.base import ProposalGenerator
from sapnet.proposals.cached import CachedProposals
from sapnet.utils.resources import keep_room

PLAN = "plan"
Build = Callable[[Mapping[str, Any]], ProposalGenerator]


@dataclass(frozen=True)
class ProposalShard:
    """Make the bags of some images of a run.

    Attributes:
        points: file with the points of these images.
        image_paths: files of the images by id.
        proposals: settings of the generator.
        plan: of `Run.plan`.
        store: folder of the store, which is asked first and keeps what is made.
        result: file for the bags, in the format of the store.
        excluded: ids of images that are not to be looked at.
        one_by_one: never have two images in hand, so that a death names one.
        reserve_bytes: of the disk that stay free.
    """

    points: Path
    image_paths: dict[int, Path]
    proposals: dict[str, Any]
    plan: dict[str, Any]
    store: Path
    result: Path
    excluded: tuple[int, ...] = ()
    one_by_one: bool = False
    reserve_bytes: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "ProposalShard":
        """From the fields of a line.

        Raises:
            InvalidConfig: names what is missing or unknown.
        """
        values = dict(data)
        try:
            for name in ("points", "store", "result"):
                values[name] = Path(values[name])
            paths = {int(key): Path(path) for key, path in values.pop("image_paths").items()}
            return cls(image_paths=paths, **values)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise InvalidConfig(f"no shard: {error!r}; its fields are {names}") from error

    def __call__(self, generator: ProposalGenerator, emit_event: EventSink) -> None:
        """Make them.

        Raises:
            SapnetError: what is wrong is not an image's fault. So it is with other errors.
        """
        began = time.monotonic()
        points = load_points(self.points, may_be_empty=True)
        limit, ranges = self.plan["max_proposals"], self.plan["ranges"]
        ranges = {kind: tuple(values) for kind, values in ranges.items()}
        maker = CachedProposals(self.store, generator, self.image_paths, limit, ranges)
        wanted = [image for image in points if image[0].id not in self.excluded]
        keys: list[str] = []
        made = maker.make_all(wanted, one_by_one=self.one_by_one)
        for step, (info, make) in enumerate(made, start=len(points.images) - len(wanted)):
            emit_event(ImageBegun(info.id, step))
            try:
                keys.append(make())
            except Exception as error:
                if not blames_image(error):
                    raise
                failed = FailedImage.of(info, Stage.PROPOSALS, error)
                emit_event(ImageSetAside(**asdict(failed)))
            keep_room(self.store, self.reserve_bytes)
        maker.export(keys, self.result)
        emit_event(ShardDone(len(points.images), round(time.monotonic() - began, 3)))


def serve(lines: Iterable[str], emit_event: EventSink, build: Build = build_generator) -> int:
    """Work on the shards that the lines describe.

    Args:
        lines: of JSON.
        emit_event: takes each event; an `error` is the last.
        build: makes a generator from its settings.

    Returns:
        The exit code.
    """
    generators: dict[str, ProposalGenerator] = {}
    try:
        for line in lines:
            spec = json.loads(line)
            stage = spec.pop("stage", None)
            if stage == PLAN:
                emit_event(Planned(_plan(Path(spec["job"]), emit_event)))
            elif stage == Stage.PROPOSALS:
                shard = ProposalShard.of(spec)
                key = json.dumps(shard.proposals, sort_keys=True)
                if key not in generators:
                    generators = {key: build(shard.proposals)}
                shard(generators[key], emit_event)
            else:
                raise InvalidConfig(f"there is no stage {stage!r} of shards")
    except Exception as error:
        emit_event(failure(error))
        return ExitCode.FAILED
    return ExitCode.DONE


def _plan(job: Path, emit_event: EventSink) -> dict[str, Any]:
    from sapnet.pipeline.run import Run  # loads torch
    from sapnet.pipeline.spec import RunSpec

    return Run(RunSpec.read(job), emit_event, lambda: False).plan()
