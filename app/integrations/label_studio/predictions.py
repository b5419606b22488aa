"""What a trained model predicts in tasks, as Label Studio's predictions."""

import io
import time
from collections.abc import Callable
from typing import Any

from app.errors import Invalid
from app.integrations.label_studio.images import TaskImage
from app.integrations.label_studio.interface import Control, Interface
from app.integrations.label_studio.regions import regions_of
from app.integrations.label_studio.schemas import PredictionOut, Task
from app.observability.log import log
from app.predict.model_cache import PredictOptions, Runtime
from app.predict.service import ModelInfo, Prediction, least_score, predict
from app.settings import Settings
from app.storage.images import NotAnImage
from app.storage.store import Storage
from sapnet.data.masks import decode

Fetched = Callable[[str], TaskImage]


def predict_tasks(
    runtime: Runtime,
    storage: Storage,
    settings: Settings,
    model: ModelInfo,
    interface: Interface,
    tasks: list[Task],
    image_at: Fetched,
    score: float | None,
) -> list[PredictionOut | list[PredictionOut]]:
    """Predictions for each task, in order; an empty list for one that has none.

    That is one whose image cannot be had, which is logged, or one for which no time was left: Label
    Studio asks for it again, since it stores no prediction for it.

    Args:
        image_at: gives the image at an address, and raises Invalid.
        score: confidence threshold; None is the model's own.

    Raises:
        Invalid: the labelling interface has no tag for regions of an image.
        Unavailable: other requests hold all that is free, or the model cannot be loaded.
    """
    control = interface.for_predictions()
    labels = labels_of(model, control)
    options = PredictOptions(least_score(settings, model, score))
    deadline = time.monotonic() + settings.label_studio_seconds
    results: list[PredictionOut | list[PredictionOut]] = []
    for number, task in enumerate(tasks):
        if number and time.monotonic() > deadline:
            results.append([])
            continue
        address = interface.address(task.data, control)
        try:
            file = io.BytesIO(image_at(address or "").data)
            prediction = predict(runtime, storage, settings, model, file, options)
        except (Invalid, NotAnImage) as error:
            log.warning("label_studio.task_without_prediction", task=task.id, error=str(error))
            results.append([])
        else:
            results.append(_prediction(prediction, model, control, labels))
    return results


def labels_of(model: ModelInfo, control: Control) -> dict[int, str]:
    """The labels of a model's classes, by their ids; those that have none are left out."""
    labels = {category.id: control.label(category.name) for category in model.categories}
    return {id_: label for id_, label in labels.items() if label is not None}


def _prediction(
    prediction: Prediction, model: ModelInfo, control: Control, labels: dict[int, str]
) -> PredictionOut:
    regions: list[dict[str, Any]] = []
    scores = []
    for result in prediction.results:
        label = labels.get(result["category_id"])
        if label is not None:
            mask = decode(result["segmentation"])
            regions += regions_of(mask, prediction.orientation, control, label, result["score"])
            scores.append(result["score"])
    mean = sum(scores) / len(scores) if scores else 0.0
    return PredictionOut(result=regions, score=round(mean, 4), model_version=model.id)
