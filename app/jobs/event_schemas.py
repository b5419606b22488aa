"""An event of a job, as it goes over the wire."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.db.models import EventType

_EXAMPLE: JsonDict = {
    "id": 7,
    "type": "progress",
    "timestamp": "2026-11-20T12:00:00.000Z",
    "job_id": "01a1fc2766b68885ca3292807f96eddc",
    "attempt": 1,
    "data": {"stage": "train", "step": 40, "of": 288, "progress": 0.24, "eta_seconds": 101.0},
}


class EventOut(BaseModel):
    """The same in server-sent events, in pages and in webhooks."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    id: int = Field(description="1, 2, 3, … within the job, without gaps")
    type: EventType
    timestamp: datetime
    job_id: str
    attempt: int = Field(description="of the job at that moment; 0 before the first")
    data: dict[str, Any]


class EventPage(BaseModel):
    """Some events, in order, and the cursor of the next page; null on the last."""

    events: list[EventOut]
    next: str | None
