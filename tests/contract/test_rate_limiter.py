"""What every rate limiter owes its callers, and how the one on Redis does without Redis."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from adapters.redis import rate_limiter
from adapters.redis.client import connect
from adapters.redis.outage import BACK_OFF_SECONDS
from adapters.redis.rate_limiter import RedisRateLimiter
from application.ports.rate_limiter import RateLimiter
from domain.errors import CallsTooFrequent
from tests.fakes.clock import FakeClock
from tests.fakes.rate_limiter import FakeRateLimiter
from tests.fakes.silent_server import silent_server

NEVER = 0.001
"""Permits a second that do not come back within a test."""
PATIENCE = 30.0
"""Seconds for an answer that comes, however busy the machine is."""

Make = Callable[[float, int], RateLimiter]


async def admitted(limiter: RateLimiter, principal: UUID, calls: int) -> int:
    """How many of so many calls at once get through."""

    async def call() -> int:
        with suppress(CallsTooFrequent):
            await limiter.admit(principal)
            return 1
        return 0

    return sum(await asyncio.gather(*(call() for _ in range(calls))))


class RateLimiterContract:
    @pytest.mark.parametrize("burst", [1, 7, 100, 550])
    async def test_a_burst_is_admitted_to_the_last_call(self, make: Make, burst: int) -> None:
        assert await admitted(make(NEVER, burst), uuid4(), burst + 50) == burst

    async def test_a_refusal_names_the_limit(self, make: Make) -> None:
        limiter, principal = make(5, 1), uuid4()
        await limiter.admit(principal)
        with pytest.raises(CallsTooFrequent, match="more than 5 calls a second"):
            await limiter.admit(principal)

    async def test_a_refusal_says_when_the_next_call_has_a_chance(self, make: Make) -> None:
        limiter, principal = make(NEVER, 1), uuid4()
        await limiter.admit(principal)
        with pytest.raises(CallsTooFrequent) as refused:
            await limiter.admit(principal)
        assert 900 < refused.value.retry_after <= 1000

    async def test_after_that_time_the_call_is_admitted(
        self, make: Make, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        limiter, principal = make(NEVER, 1), uuid4()
        await limiter.admit(principal)
        with pytest.raises(CallsTooFrequent) as refused:
            await limiter.admit(principal)
        await pass_time(refused.value.retry_after + 1)
        await limiter.admit(principal)

    async def test_a_long_rest_saves_no_more_than_one_burst(
        self, make: Make, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        limiter, principal = make(NEVER, 1), uuid4()
        await limiter.admit(principal)
        await pass_time(10_000)
        assert await admitted(limiter, principal, 3) == 1

    async def test_principals_do_not_share_a_bucket(self, make: Make) -> None:
        limiter = make(NEVER, 1)
        await limiter.admit(uuid4())
        await limiter.admit(uuid4())


class TestFakeRateLimiter(RateLimiterContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def make(self, clock: FakeClock) -> Make:
        return lambda per_second, burst: FakeRateLimiter(clock, per_second=per_second, burst=burst)

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> Callable[[float], Awaitable[None]]:
        async def advance(seconds: float) -> None:
            clock.advance(seconds=seconds)

        return advance


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=PATIENCE)
    yield client
    await client.aclose()


class TestRedisRateLimiter(RateLimiterContract):
    @pytest.fixture
    def now(self) -> list[float]:
        """The time that this replica's clock shows."""
        return [0.0]

    @pytest.fixture
    def make(self, redis: Redis, now: list[float]) -> Make:
        return lambda per_second, burst: RedisRateLimiter(
            redis, per_second=per_second, burst=burst, timeout_seconds=PATIENCE, monotonic=lambda: now[0]
        )

    @pytest.fixture
    def pass_time(self, redis: Redis, now: list[float]) -> Callable[[float], Awaitable[None]]:
        async def grow_old(seconds: float) -> None:
            """Dates all buckets back, since the server's clock cannot be set."""
            now[0] += seconds
            for bucket in await redis.keys("chatback:calls:*"):
                await redis.hincrbyfloat(bucket, "time", -seconds)

        return grow_old

    async def test_replicas_share_one_bucket(self, make: Make) -> None:
        replicas, principal = [make(NEVER, 1000) for _ in range(3)], uuid4()
        assert sum(await asyncio.gather(*(admitted(replica, principal, 600) for replica in replicas))) == 1000

    async def test_a_replica_keeps_back_less_than_one_block(self, make: Make) -> None:
        greedy, other, principal = make(NEVER, 1000), make(NEVER, 1000), uuid4()
        await greedy.admit(principal)
        assert await admitted(other, principal, 1000) == 990

    async def test_a_trip_to_redis_serves_a_block_of_calls(self, redis: Redis, make: Make) -> None:
        limiter, principal = make(NEVER, 1000), uuid4()
        await limiter.admit(uuid4())  # the server knows the script from now on
        await redis.config_resetstat()
        await admitted(limiter, principal, 100)
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 10

    async def test_a_refused_principal_costs_no_more_trips_until_its_time_comes(self, redis: Redis, make: Make) -> None:
        limiter, principal = make(NEVER, 1), uuid4()
        await admitted(limiter, principal, 2)
        await redis.config_resetstat()
        await admitted(limiter, principal, 100)
        assert "cmdstat_evalsha" not in await redis.info("commandstats")

    async def test_a_bucket_that_is_full_again_is_forgotten(self, redis: Redis, make: Make) -> None:
        principal = uuid4()
        await make(NEVER, 100).admit(principal)
        assert 900_000 < await redis.pttl(f"chatback:calls:{{{principal}}}") <= 1_001_000

    async def test_a_script_that_the_server_forgot_is_sent_again(self, redis: Redis, make: Make) -> None:
        limiter, principal = make(NEVER, 2), uuid4()
        await limiter.admit(principal)
        await redis.script_flush()
        await limiter.admit(principal)
        assert await redis.exists(f"chatback:calls:{{{principal}}}")

    async def test_principals_that_are_quiet_are_dropped(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rate_limiter, "PRINCIPALS", 3)
        limiter = make(NEVER, 10)
        assert isinstance(limiter, RedisRateLimiter)
        for _ in range(10):
            await limiter.admit(uuid4())
        assert len(limiter._allowances) == 3


@dataclass(slots=True)
class Frozen:
    """A Redis that takes commands and never answers, and how often it was asked."""

    redis: Redis
    asked: int = 0


class TestWithoutRedis:
    @pytest.fixture
    async def frozen(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Frozen]:
        async with silent_server() as port:
            frozen = Frozen(connect(f"redis://127.0.0.1:{port}"))
            execute: Callable[..., Awaitable[object]] = frozen.redis.execute_command

            async def counted(*words: object, **options: object) -> object:
                frozen.asked += 1
                return await execute(*words, **options)

            monkeypatch.setattr(frozen.redis, "execute_command", counted)
            yield frozen
            await frozen.redis.aclose()

    @pytest.fixture
    async def refusing(self, unused_tcp_port: int) -> AsyncIterator[Redis]:
        client = connect(f"redis://127.0.0.1:{unused_tcp_port}", timeout_seconds=PATIENCE)
        yield client
        await client.aclose()

    async def test_each_replica_keeps_the_limit_by_itself(self, refusing: Redis) -> None:
        limiter = RedisRateLimiter(refusing, per_second=NEVER, burst=20)
        assert await admitted(limiter, uuid4(), 50) == 20

    async def test_the_limit_still_fills_up_again(self, refusing: Redis) -> None:
        now = [0.0]
        limiter, principal = RedisRateLimiter(refusing, per_second=10, burst=5, monotonic=lambda: now[0]), uuid4()
        await admitted(limiter, principal, 10)
        now[0] += 0.31
        assert await admitted(limiter, principal, 10) == 3

    async def test_a_refusal_still_says_when_the_next_call_has_a_chance(self, refusing: Redis) -> None:
        limiter, principal = RedisRateLimiter(refusing, per_second=0.5, burst=1, monotonic=lambda: 0.0), uuid4()
        await limiter.admit(principal)
        with pytest.raises(CallsTooFrequent) as refused:
            await limiter.admit(principal)
        assert refused.value.retry_after == 2

    async def test_a_redis_that_is_silent_delays_one_call_and_the_others_not_at_all(self, frozen: Frozen) -> None:
        limiter = RedisRateLimiter(frozen.redis, per_second=NEVER, burst=1000, monotonic=lambda: 0.0)
        for _ in range(200):
            await limiter.admit(uuid4())
        assert frozen.asked == 1

    async def test_a_redis_that_is_silent_is_asked_once_a_second(self, frozen: Frozen) -> None:
        now = [0.0]
        limiter = RedisRateLimiter(frozen.redis, per_second=NEVER, burst=1000, monotonic=lambda: now[0])
        await limiter.admit(uuid4())
        now[0] += BACK_OFF_SECONDS
        await asyncio.gather(*(limiter.admit(uuid4()) for _ in range(50)))
        assert frozen.asked == 2

    async def test_the_operator_is_told_once(self, refusing: Redis, caplog: pytest.LogCaptureFixture) -> None:
        limiter = RedisRateLimiter(refusing, per_second=NEVER, burst=1000, timeout_seconds=PATIENCE)
        with caplog.at_level(logging.INFO):
            await admitted(limiter, uuid4(), 50)
        assert [record.getMessage() for record in caplog.records] == [
            "Redis does not answer (ConnectionError): each replica limits calls by itself"
        ]

    async def test_replicas_share_the_limit_again_when_redis_is_back(self, redis: Redis, refusing: Redis) -> None:
        now = [0.0]
        limiter = RedisRateLimiter(
            redis, per_second=NEVER, burst=1000, timeout_seconds=PATIENCE, monotonic=lambda: now[0]
        )
        limiter._take = refusing.register_script("return nil")
        principal = uuid4()
        await limiter.admit(principal)
        limiter._take = redis.register_script(rate_limiter._TAKE)
        now[0] += BACK_OFF_SECONDS
        await limiter.admit(principal)
        assert await redis.exists(f"chatback:calls:{{{principal}}}")
