"""Telling workers that there is a job. The row is the truth, the message only a hint.

With no broker (embedded) there is nothing to send: workers look for rows. With Celery, the id is
sent after the commit; a message that cannot be sent loses nothing, since the row stays `queued`
and workers look for rows that nobody has taken.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from app.db.models import Job
from app.jobs.kinds import KINDS, QUEUES, SHARD, TRAIN
from app.observability.log import log

TASK = "sapnet.execute"
SHARDS_TASK = "sapnet.shards"
MOST_HINTS = 1_000
"""Messages that say of one stage that there are shards."""
VISIBILITY_TIMEOUT = 24 * 3600  # seconds; equal in every app on the same Redis


def enqueue(session: Session, job: Job, broker_url: str | None) -> None:
    """Send the job's id to its kind's queue once the session is committed, and not if it is not."""
    if broker_url is None:
        return
    job_id, url, queue = job.id, broker_url, KINDS[job.kind].queue

    def after_commit(_session: Session) -> None:
        send(job_id, url, queue)

    # A session of `app.db.session` lives for one transaction: rolled back, it sends nothing.
    event.listen(session, "after_commit", after_commit, once=True)


def send(job_id: str, broker_url: str, queue: str = TRAIN) -> bool:
    """Send one id by the task's name; False, and a log line, where no broker answers."""
    try:
        _celery(broker_url).send_task(TASK, args=[job_id], queue=queue, retry=False)
    except Exception as error:  # whatever the transport raises: the row is still there
        log.warning("job not sent, workers will find its row", job=job_id, error=repr(error))
        return False
    return True


def send_shard_hints(broker_url: str | None, count: int) -> None:
    """Tell workers that there are shards, `count` times: so many may be taken at once."""
    if broker_url is None:
        return
    try:
        for _ in range(min(count, MOST_HINTS)):
            _celery(broker_url).send_task(SHARDS_TASK, queue=SHARD, retry=False)
    except Exception as error:  # whatever the transport raises: the rows are still there
        log.warning("no word of shards sent, the reaper sends it again", error=repr(error))


def depths(broker_url: str) -> dict[str, int]:
    """Return how many messages wait in each queue.

    Raises:
        ConnectionError: no broker answers.
    """
    with _celery(broker_url).connection_for_write() as connection:
        try:
            with connection.channel() as channel:
                return {
                    queue: int(channel.queue_declare(queue=queue, durable=True).message_count)
                    for queue in QUEUES
                }
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise ConnectionError(f"the broker does not answer: {error!r}") from error


def visibility(**transport: Any) -> dict[str, Any]:
    """Return Celery's settings for how long an unacknowledged message stays hidden.

    They are in every place that is read: one app that says less redelivers the tasks of all.

    Args:
        transport: more options of the broker's transport.
    """
    hidden = {"visibility_timeout": VISIBILITY_TIMEOUT}
    return {
        **hidden,
        "broker_transport_options": {**hidden, **transport},
        "result_backend_transport_options": hidden,
    }


@lru_cache(maxsize=4)
def _celery(broker_url: str) -> Any:
    from celery import Celery  # 100 ms that the embedded service need not spend

    celery = Celery("sapnet-api", broker=broker_url)
    celery.conf.update(
        task_ignore_result=True,
        broker_connection_timeout=3,
        **visibility(
            max_retries=1,  # the request waits for it, and workers find the row anyway
            interval_start=0,
            socket_connect_timeout=3,
            socket_timeout=10,
        ),
    )
    return celery
