"""Webhooks: registered with their job, taken up by one sender at a time, delivered in order.

The outbox is the log of events itself: a webhook is a reader of it, with its place kept in a row.
An event is written in one transaction with what it tells, so a crash at any moment loses none; a
crash between an answer and the row's change delivers one twice, under the same `webhook-id`.
"""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import EventType, Job, JobEvent, Webhook
from app.db.session import rows_changed
from app.errors import ValidationIssue
from app.outbound.url_policy import AddressRefused, check_url
from app.settings import Settings
from app.webhooks.schemas import Delivery, WebhookIn, WebhookOut

LONGEST_DELAY = timedelta(hours=6)
IN_HAND = timedelta(seconds=15)
"""Added to the time that a try may take: after it another sender may take the webhook up."""


@dataclass(frozen=True, slots=True)
class WebhookLease:
    """The right to deliver one webhook's events; whoever writes names its `turn`."""

    id: str
    turn: int


def issues(settings: Settings, webhook: WebhookIn | None) -> list[ValidationIssue]:
    """What is wrong with the URL, as far as its text tells."""
    try:
        if webhook is not None:
            check_url(webhook.url, allow_private=settings.webhook_private_addresses)
    except AddressRefused as error:
        hint = "name an endpoint on the public internet, as https://host/path"
        return [ValidationIssue("body", "/webhook/url", str(error), hint)]
    return []


def register(session: Session, settings: Settings, job_id: str, webhook: WebhookIn | None) -> None:
    """The job's own webhook, and that of the settings. The job's row must have been flushed."""
    if webhook is not None:
        types = sorted(set(webhook.events)) if webhook.events is not None else None
        session.add(
            Webhook(
                job_id=job_id, url=webhook.url, secret=webhook.secret, types=types, due_at=now()
            )
        )
    if settings.webhook_url is not None:
        session.add(Webhook(job_id=job_id, due_at=now()))


def of_job(session: Session, job_id: str) -> list[WebhookOut]:
    """Return the webhooks of a job, without their secrets."""
    query = select(Webhook).where(Webhook.job_id == job_id).order_by(Webhook.id)
    return [_out(webhook) for webhook in session.scalars(query)]


def _out(webhook: Webhook) -> WebhookOut:
    delivery = Delivery.WAITING
    if webhook.due_at is None:
        delivery = Delivery.DELIVERED if webhook.error is None else Delivery.GIVEN_UP
    return WebhookOut(
        url=webhook.url,
        events=webhook.types,
        delivery=delivery,
        sent=webhook.sent,
        tries=webhook.tries,
        next_try_at=webhook.due_at if webhook.tries else None,
        error=webhook.error,
    )


def due(session: Session, limit: int) -> list[WebhookLease]:
    """Webhooks that have something to deliver and are in nobody's hands."""
    query = (
        select(Webhook.id, Webhook.turn)
        .join(Job, Job.id == Webhook.job_id)
        .where(Webhook.due_at <= now(), Job.last_event > Webhook.sent)
        .order_by(Webhook.due_at)
        .limit(limit)
    )
    return [WebhookLease(*row) for row in session.execute(query)]


def take(session: Session, lease: WebhookLease, settings: Settings) -> WebhookLease | None:
    """Take a webhook up, by compare-and-set; None where another sender was quicker."""
    taken = WebhookLease(lease.id, lease.turn + 1)
    values = {"turn": taken.turn, "due_at": _in_hand_until(settings)}
    return taken if _change(session, lease, values) else None


class Following(NamedTuple):
    """What a sender needs to know.

    Attributes:
        event: the one to deliver next: the oldest that is wanted, or the job's end; None where
            there is none yet.
        newest: where `event` is None, no event up to this number is wanted.
    """

    webhook: Webhook
    event: JobEvent | None
    newest: int

    @property
    def wanted(self) -> bool:
        """Whether the webhook asks for events of this type."""
        types = self.webhook.types
        return self.event is not None and (types is None or self.event.type in types)


def following(session: Session, lease: WebhookLease) -> Following | None:
    """None where the webhook is no longer ours."""
    webhook = session.get(Webhook, lease.id)
    if webhook is None or webhook.turn != lease.turn:
        return None
    # The number first: events up to it are there when the next query looks for them.
    newest = session.scalar(select(Job.last_event).where(Job.id == webhook.job_id)) or 0
    query = select(JobEvent).where(JobEvent.job_id == webhook.job_id, JobEvent.seq > webhook.sent)
    if webhook.types is not None:
        query = query.where(JobEvent.type.in_([*webhook.types, EventType.END]))
    event = session.scalars(query.order_by(JobEvent.seq).limit(1)).first()
    return Following(webhook, event, newest)


def passed(session: Session, lease: WebhookLease, settings: Settings, event: JobEvent) -> bool:
    """The event is through. After a job's last one the webhook is done, its secret forgotten."""
    over = event.type == EventType.END
    values: dict[str, Any] = {"sent": event.seq, "tries": 0, "error": None}
    values |= {"due_at": None, "secret": None} if over else {"due_at": _in_hand_until(settings)}
    return _change(session, lease, values) and not over


def release(session: Session, lease: WebhookLease, newest: int | None = None) -> None:
    """Out of our hands. newest: events up to this one are through, for nobody wants them."""
    values: dict[str, Any] = {"due_at": now()}
    _change(session, lease, values if newest is None else {**values, "sent": newest})


def failed(
    session: Session, lease: WebhookLease, settings: Settings, why: str, *, gone: bool
) -> None:
    """Record a failed try: the next one comes later and later.

    It is given up where the endpoint says that it is gone for good, or after `webhook_max_tries`.
    """
    webhook = session.get(Webhook, lease.id)
    if webhook is None:
        return
    tries = webhook.tries + 1
    over = gone or tries >= settings.webhook_max_tries
    values: dict[str, Any] = {"tries": tries, "error": why[:500]}
    values |= (
        {"due_at": None, "secret": None} if over else {"due_at": now() + _delay(tries, settings)}
    )
    _change(session, lease, values)


def _delay(tries: int, settings: Settings) -> timedelta:
    """Return seconds that double with each failure.

    Half of them are left to chance, so that the webhooks of an endpoint that was away do not all
    come at once.
    """
    doubled = settings.webhook_retry_seconds * 2.0 ** min(tries - 1, 40)
    full = min(doubled, LONGEST_DELAY.total_seconds())
    return timedelta(seconds=full * random.uniform(0.5, 1.0))


def _in_hand_until(settings: Settings) -> Any:
    return now() + timedelta(seconds=settings.webhook_timeout_seconds) + IN_HAND


def _change(session: Session, lease: WebhookLease, values: dict[str, Any]) -> bool:
    changed = update(Webhook).where(Webhook.id == lease.id, Webhook.turn == lease.turn)
    changed = changed.values(values).execution_options(synchronize_session=False)
    return rows_changed(session, changed) == 1
