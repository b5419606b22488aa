"""TensorBoard's event files: written beside a run, or made of its events afterwards."""

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sapnet.utils.tracking.base import Ending, RunInfo, Scalar


class TensorBoard:
    """Writes an event file into the run's folder. A run that goes on adds a file there."""

    url: str | None = None

    def __init__(self, info: RunInfo) -> None:
        self.run_id = info.run_id or info.key
        self._folder = info.folder / info.key
        self._reached = _last_steps(self._folder)
        self._file: Any = None
        if not self._reached:
            self._write(_text_event("parameters", _table(info.params), time.time()))

    def reached(self) -> Mapping[str, int]:
        """Return the last step of each series, read from the files."""
        return self._reached

    def log(self, scalars: Sequence[Scalar]) -> None:
        """Write figures."""
        for scalar in scalars:
            self._write(_scalar_event(scalar))
            self._reached[scalar.name] = scalar.step

    def finish(self, ending: Ending) -> None:
        """Write final figures and the gallery."""
        last = max(self._reached.values(), default=0)
        final = [Scalar(f"final/{n}", v, last, ending.time) for n, v in ending.figures.items()]
        self.log([scalar for scalar in final if scalar.name not in self._reached])
        gallery = ending.files.get("gallery.png")
        if gallery is not None and final:
            self._write(_image_event("gallery", gallery.read_bytes(), ending.time))
        self._write(_text_event("parameters", _table(ending.params), ending.time))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: Any) -> None:
        if self._file is None:
            from tensorboard.summary.writer.record_writer import RecordWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.sapnet"
            self._file = RecordWriter((self._folder / name).open("xb"))
            self._file.write(_first_event().SerializeToString())
        self._file.write(event.SerializeToString())
        self._file.flush()


def event_file(scalars: Iterable[Scalar], params: Mapping[str, str]) -> bytes:
    """Return an event file of a run's figures; the same figures give the same bytes."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    kept = list(scalars)
    began = kept[0].time if kept else 0.0
    writer.write(_first_event(began).SerializeToString())
    if params:
        writer.write(_text_event("parameters", _table(params), began).SerializeToString())
    for scalar in kept:
        writer.write(_scalar_event(scalar).SerializeToString())
    return buffer.getvalue()


def _last_steps(folder: Path) -> dict[str, int]:
    steps: dict[str, int] = {}
    for event in _events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                steps[value.tag] = max(event.step, steps.get(value.tag, 0))
    return steps


def _events(folder: Path) -> Iterator[Any]:
    """All events of a folder's files; a record that was cut off ends its file."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        for raw in RawEventFileLoader(str(path)).Load():
            yield Event.FromString(raw)


def _first_event(moment: float | None = None) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    when = time.time() if moment is None else moment
    return Event(wall_time=when, file_version="brain.Event:2")


def _scalar_event(scalar: Scalar) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag=scalar.name, simple_value=scalar.value)
    return Event(wall_time=scalar.time, step=scalar.step, summary=Summary(value=[value]))


def _text_event(tag: str, text: str, moment: float) -> Any:
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2
    from tensorboard.compat.proto.event_pb2 import Event

    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
    return Event(wall_time=moment, step=0, summary=summary_pb2.Summary(value=[value]))


def _image_event(tag: str, png: bytes, moment: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=png, colorspace=3))
    return Event(wall_time=moment, step=0, summary=Summary(value=[value]))


def _table(params: Mapping[str, str]) -> str:
    rows = [f"| {name} | {value} |" for name, value in params.items()]
    return "\n".join(["| parameter | value |", "|---|---|", *rows])
