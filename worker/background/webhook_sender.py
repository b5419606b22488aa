"""Delivers webhooks, beside the work: `app.webhooks.service` says what, this says how."""

import threading
import time

import httpx2
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.jobs import events
from app.outbound import webhook_signature as signing
from app.outbound.client import safe_client
from app.outbound.url_policy import AddressRefused
from app.settings import Settings
from app.webhooks import service
from app.webhooks.service import Following, WebhookLease

log = structlog.get_logger()

AT_ONCE = 8  # webhooks; a slow endpoint keeps up none but its own
GONE = 410


class WebhookSender(threading.Thread):
    """Looks every `poll_seconds` for events that are to be posted, and posts them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(name="webhook-sender", daemon=True)
        self._database, self._settings = database, settings
        self._ended = threading.Event()
        self._deliveries: list[threading.Thread] = []
        self._client = safe_client(
            allow_private=settings.webhook_private_addresses,
            timeout=settings.webhook_timeout_seconds,
            lifetime=settings.webhook_timeout_seconds,
            keep_alive=False,
        )

    def run(self) -> None:
        """Do a round every `poll_seconds` until `stop`."""
        while not self._ended.wait(self._settings.poll_seconds):
            try:
                self.run_once()
            except SQLAlchemyError as error:
                log.warning("webhooks wait for the database", error=type(error).__name__)
            except Exception:  # this thread must not end while its worker goes on
                log.exception("webhooks not looked for")

    def stop(self, seconds: float = 2.0) -> None:
        """Deliveries in hand get so long; what is left is delivered by the next sender."""
        self._ended.set()
        deadline = time.monotonic() + seconds
        for delivery in self._deliveries:
            delivery.join(max(0.0, deadline - time.monotonic()))

    def run_once(self) -> None:
        """Take up what is due, and deliver each in a thread of its own."""
        self._deliveries = [d for d in self._deliveries if d.is_alive()]
        with self._database.read() as session:
            following = service.due(session, AT_ONCE - len(self._deliveries))
        for waiting in following:
            with self._database.begin() as session:
                lease = service.take(session, waiting, self._settings)
            if lease is not None:
                delivery = threading.Thread(target=self._deliver, args=(lease,), daemon=True)
                self._deliveries.append(delivery)
                delivery.start()

    def _deliver(self, lease: WebhookLease) -> None:
        try:
            while self._step(lease):
                if self._ended.is_set():
                    with self._database.begin() as session:
                        service.release(session, lease)
                    return
        except SQLAlchemyError as error:  # it is taken up again when its time in hand is over
            log.warning("a webhook waits for the database", error=type(error).__name__)

    def _step(self, lease: WebhookLease) -> bool:
        """Deliver the next event; whether there may be more to do now."""
        with self._database.read() as session:
            following = service.following(session, lease)
        if following is None:
            return False
        failure = self._post(following) if following.wanted else None
        with self._database.begin() as session:
            if following.event is None:
                service.release(session, lease, following.newest)
                return False
            if failure is None:
                return service.passed(session, lease, self._settings, following.event)
            why, gone = failure
            service.failed(session, lease, self._settings, why, gone=gone)
        log.warning("webhook not delivered", job=following.webhook.job_id, why=why)
        return False

    def _post(self, following: Following) -> tuple[str, bool] | None:
        """None for an answer of 2xx; else why not, and whether it is for good."""
        hook, event = following.webhook, following.event
        assert event is not None
        url, secret = hook.url, hook.secret
        if url is None:
            url, secret = self._settings.webhook_url, self._settings.webhook_secret
        if url is None:
            return "the service's settings name no webhook any more", True
        body = events.encode(event)
        message_id = f"evt_{event.job_id}_{event.seq}"
        headers = {
            "content-type": "application/json",
            "user-agent": "sapnet-webhooks",
            **signing.headers(secret, message_id, int(time.time()), body),
        }
        try:
            with self._client.stream("POST", url, content=body, headers=headers) as answer:
                if answer.is_success:
                    return None
                return f"the endpoint answered {answer.status_code}", answer.status_code == GONE
        except AddressRefused as error:
            return str(error), False
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"{type(error).__name__}: {error}", False
        except Exception as error:  # whatever it is, the next webhook must not wait for it
            log.exception("webhook not delivered")
            return type(error).__name__, False
