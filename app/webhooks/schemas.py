"""Where a job's events are to be posted."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.db.models import EventType
from app.outbound.webhook_signature import key_of


def _secret(value: str) -> str:
    key_of(value)
    return value


class WebhookIn(BaseModel):
    """An address to which each event is posted as JSON.

    In order and at least once, until the endpoint answers 2xx. With a secret, messages are signed
    by the Standard Webhooks convention.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"url": "https://example.org/hooks/sapnet", "events": ["error", "end"]}]
        },
    )
    url: str = Field(min_length=1, max_length=2000, description="https, at a public address")
    secret: Annotated[str, AfterValidator(_secret)] | None = Field(
        None,
        max_length=100,
        description='"whsec_" and 24 to 64 random bytes in base64; it is never shown again',
    )
    events: list[EventType] | None = Field(
        None, min_length=1, max_length=len(EventType), description="their types; default: all"
    )


class Delivery(StrEnum):
    """How far the deliveries of a webhook are."""

    WAITING = "waiting"  # for the next event, or for the next try
    DELIVERED = "delivered"  # to the end of the job
    GIVEN_UP = "given_up"


class WebhookOut(BaseModel):
    """A webhook of a job, and how far its deliveries are."""

    model_config = ConfigDict(from_attributes=True)
    url: str | None = Field(description="null is the one in the service's settings")
    events: list[EventType] | None
    delivery: Delivery
    sent: int = Field(description="id of the newest event that is through")
    tries: int = Field(description="failed tries of the one after it")
    next_try_at: datetime | None
    error: str | None = Field(description="why the last try failed")
