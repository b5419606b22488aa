"""The handler of each kind of job."""

from typing import assert_never

from app.db.models import JobKind
from worker.jobs import export_masks, import_dataset, import_model, label, onnx, predict, train
from worker.jobs.context import JobHandler


def handler_of(kind: JobKind) -> JobHandler:
    """Return the handler of a kind of job."""
    match kind:
        case JobKind.TRAIN:
            return train.HANDLER
        case JobKind.PREDICT:
            return predict.HANDLER
        case JobKind.LABEL:
            return label.HANDLER
        case JobKind.ONNX:
            return onnx.HANDLER
        case JobKind.IMPORT_MODEL:
            return import_model.HANDLER
        case JobKind.IMPORT:
            return import_dataset.HANDLER
        case JobKind.EXPORT:
            return export_masks.HANDLER
    assert_never(kind)
