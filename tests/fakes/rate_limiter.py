"""Token buckets in memory."""

from uuid import UUID

from application.ports.clock import Clock
from application.ports.rate_limiter import RateLimiter
from domain.errors import CallsTooFrequent


class FakeRateLimiter(RateLimiter):
    """Keeps the limit exactly, by the test's clock."""

    def __init__(self, clock: Clock, *, per_second: float = 200, burst: int = 2000) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[UUID, tuple[float, float]] = {}

    async def admit(self, principal: UUID) -> None:
        now = self._clock.now().timestamp()
        tokens, then = self._buckets.get(principal, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        if tokens < 1:
            raise CallsTooFrequent(self._per_second, (1 - tokens) / self._per_second)
        self._buckets[principal] = tokens - 1, now
