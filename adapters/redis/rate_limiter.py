"""Token buckets in Redis, spent in blocks."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

from redis.asyncio import Redis

from adapters.redis.outage import NO_ANSWER, Outage
from application.ports.rate_limiter import RateLimiter
from domain.errors import CallsTooFrequent

PRINCIPALS = 10_000

# Time is the server's, so that replicas need not agree on it; numbers are kept as text, since Lua rounds to 14 digits.
_TAKE = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'time')
local tokens = tonumber(bucket[1]) or burst
tokens = math.min(burst, tokens + math.max(0, now - (tonumber(bucket[2]) or now)) * rate)
local taken = math.min(wanted, math.floor(tokens))
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'time', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens) / rate * 1000) + 1000)
return {taken, string.format('%.6f', math.max(0, 1 - tokens) / rate)}
"""


class RedisRateLimiter(RateLimiter):
    """Gives each principal `burst` calls at once and `per_second` for ever, over all replicas together.

    A trip to Redis takes a block of up to burst/100 permits, which this replica spends by itself: a call costs about
    a microsecond, and the limit is exact to one block for each replica. While Redis does not answer, each replica
    keeps the same limit by itself, and asks again once a second.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        per_second: float,
        burst: int,
        timeout_seconds: float = 0.1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = redis.register_script(_TAKE)
        self._per_second = per_second
        self._burst = burst
        self._block = max(1, burst // 100)
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._outage = Outage(
            without="each replica limits calls by itself",
            again="replicas share the limits of calls",
            monotonic=monotonic,
        )
        self._allowances: OrderedDict[UUID, _Allowance] = OrderedDict()

    async def admit(self, principal: UUID) -> None:
        """Takes one call from the principal's bucket. Raises CallsTooFrequent, with the wait, when it is empty."""
        allowance = self._allowance(principal)
        if not allowance.permits:
            async with allowance.refill:  # one trip for all calls that wait
                if not allowance.permits:
                    await self._refill(principal, allowance)
        allowance.permits -= 1

    def _allowance(self, principal: UUID) -> "_Allowance":
        allowance = self._allowances.get(principal)
        if allowance is None:
            allowance = self._allowances[principal] = _Allowance(self._burst, self._monotonic())
            if len(self._allowances) > PRINCIPALS:
                self._allowances.popitem(last=False)
        self._allowances.move_to_end(principal)
        return allowance

    async def _refill(self, principal: UUID, allowance: "_Allowance") -> None:
        now = self._monotonic()
        if now < allowance.empty_until:
            raise CallsTooFrequent(self._per_second, allowance.empty_until - now)
        taken, wait = await self._ask(principal) or allowance.take(now, self._per_second, self._burst)
        if not taken:
            allowance.empty_until = self._monotonic() + wait
            raise CallsTooFrequent(self._per_second, wait)
        allowance.permits = taken

    async def _ask(self, principal: UUID) -> tuple[int, float] | None:
        """Returns permits and, if there are none, the seconds to the next; None while Redis does not answer."""
        if self._outage.excuses():
            return None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                taken, wait = await self._take(
                    [f"chatback:calls:{{{principal}}}"], [self._per_second, self._burst, self._block]
                )
        except NO_ANSWER as error:
            self._outage.goes_on(error)
            return None
        self._outage.is_over()
        return int(taken), float(wait)


class _Allowance:
    """What this replica holds for one principal: permits taken from Redis, and a bucket for the time without it."""

    __slots__ = ("empty_until", "permits", "refill", "time", "tokens")

    def __init__(self, burst: int, now: float) -> None:
        self.permits = 0
        self.empty_until = 0.0
        self.refill = asyncio.Lock()
        self.tokens = float(burst)
        self.time = now

    def take(self, now: float, per_second: float, burst: int) -> tuple[int, float]:
        """Takes one permit from the bucket of this process; without any, returns the seconds to the next."""
        self.tokens = min(burst, self.tokens + (now - self.time) * per_second)
        self.time = now
        if self.tokens < 1:
            return 0, (1 - self.tokens) / per_second
        self.tokens -= 1
        return 1, 0.0
