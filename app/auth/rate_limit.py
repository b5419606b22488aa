"""Requests a minute, for each key, or each address where there are no keys.

Counted in this process, or in Redis where a broker is configured: that is when several API
processes are likely, and it is there already. A sliding window (two counters a caller), so that
nobody gets twice the limit at the turn of a minute.
"""

import math
import time
from typing import Any

from app.errors import TooManyRequests
from app.settings import Settings

_REDIS = ("redis://", "rediss://", "redis+unix://")
_PATIENCE = 1.0  # seconds for Redis to answer


class Rates:
    """0 requests a minute is no limit, and then nothing is counted."""

    def __init__(self, settings: Settings) -> None:
        self._reads = settings.reads_per_minute
        self._writes = settings.writes_per_minute
        if self._reads or self._writes:
            self._limiter, self._away = _limiter(settings.broker_url)

    async def count(self, who: str, *, write: bool) -> None:
        """Count a request of this caller.

        Where Redis is away nobody is refused: limits protect the service from too much, and must
        not be what stops it.

        Raises:
            TooManyRequests: it is one too many.
        """
        limit, kind = (self._writes, "writes") if write else (self._reads, "reads")
        if not limit:
            return
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(limit)
        try:
            if await self._limiter.hit(item, who, kind):
                return
            stats = await self._limiter.get_window_stats(item, who, kind)
        except self._away as error:
            import structlog

            structlog.get_logger().warning("requests are not counted", error=repr(error))
            return
        wait = min(max(1, math.ceil(stats.reset_time - time.time())), 60)
        raise TooManyRequests(
            f"At most {limit:,} {kind} a minute; ask again in {wait} s.",
            headers={"Retry-After": str(wait)},
            limit=limit,
        )


def _limiter(broker_url: str | None) -> tuple[Any, tuple[type[Exception], ...]]:
    """What counts, and what it raises where the place that it counts in is away."""
    from limits.aio.storage import MemoryStorage, RedisStorage  # for those alone who set a limit
    from limits.aio.strategies import SlidingWindowCounterRateLimiter

    if broker_url is None or not broker_url.startswith(_REDIS):
        return SlidingWindowCounterRateLimiter(MemoryStorage()), ()
    from redis.exceptions import RedisError  # many modules, for those alone who have a broker

    storage = RedisStorage(
        f"async+{broker_url}",
        implementation="redispy",
        key_prefix="sapnet-rates",
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
    )
    return SlidingWindowCounterRateLimiter(storage), (RedisError, OSError)
