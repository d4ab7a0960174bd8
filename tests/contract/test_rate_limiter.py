"""What every rate limiter owes its callers, and how the one on Redis does without Redis."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from adapters.redis import rate_limiter
from adapters.redis.client import connect
from adapters.redis.rate_limiter import RedisRateLimiter
from application.ports.rate_limiter import RateLimiter
from domain.errors import CallsTooFrequent
from tests.fakes.clock import FakeClock
from tests.fakes.rate_limiter import FakeRateLimiter

NEVER = 0.001
"""Permits a second that do not come back within a test."""

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
        assert 990 < refused.value.retry_after <= 1000

    async def test_after_that_time_the_call_is_admitted(
        self, make: Make, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        limiter, principal = make(20, 1), uuid4()
        await limiter.admit(principal)
        with pytest.raises(CallsTooFrequent) as refused:
            await limiter.admit(principal)
        await pass_time(refused.value.retry_after + 0.001)
        await limiter.admit(principal)

    async def test_a_long_rest_saves_no_more_than_one_burst(
        self, make: Make, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        limiter, principal = make(20, 1), uuid4()
        await limiter.admit(principal)
        await pass_time(0.2)
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
    client = connect(redis_url)
    yield client
    await client.aclose()


class TestRedisRateLimiter(RateLimiterContract):
    @pytest.fixture
    def make(self, redis: Redis) -> Make:
        return lambda per_second, burst: RedisRateLimiter(redis, per_second=per_second, burst=burst)

    @pytest.fixture
    def pass_time(self) -> Callable[[float], Awaitable[None]]:
        return asyncio.sleep  # the server's clock cannot be set

    async def test_replicas_share_one_bucket(self, make: Make) -> None:
        replicas, principal = [make(NEVER, 1000) for _ in range(3)], uuid4()
        assert sum(await asyncio.gather(*(admitted(replica, principal, 600) for replica in replicas))) == 1000

    async def test_a_replica_keeps_back_less_than_one_block(self, make: Make) -> None:
        greedy, other, principal = make(NEVER, 1000), make(NEVER, 1000), uuid4()
        await greedy.admit(principal)
        assert await admitted(other, principal, 1000) == 990

    async def test_a_trip_to_redis_serves_a_block_of_calls(self, redis: Redis, make: Make) -> None:
        limiter, principal = make(NEVER, 1000), uuid4()
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
        await make(100, 100).admit(principal)
        assert 0 < await redis.pttl(f"chatback:calls:{{{principal}}}") <= 2000

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


class SilentServer:
    """Takes commands and answers none, like a frozen Redis."""

    def __init__(self) -> None:
        self.commands = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            self.commands += 1
        writer.close()


class TestWithoutRedis:
    @pytest.fixture
    async def silent(self) -> AsyncIterator[tuple[SilentServer, Redis]]:
        silent = SilentServer()
        server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
        client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield silent, client
        await client.aclose()
        server.close()

    @pytest.fixture
    async def refusing(self, unused_tcp_port: int) -> AsyncIterator[Redis]:
        client = connect(f"redis://127.0.0.1:{unused_tcp_port}")
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

    async def test_a_redis_that_is_silent_delays_one_call_a_tenth_of_a_second_and_the_others_not_at_all(
        self, silent: tuple[SilentServer, Redis]
    ) -> None:
        limiter = RedisRateLimiter(silent[1], per_second=NEVER, burst=1000, monotonic=lambda: 0.0)
        begin = asyncio.get_running_loop().time()
        for _ in range(200):
            await limiter.admit(uuid4())
        assert asyncio.get_running_loop().time() - begin < 2 * rate_limiter.TIMEOUT_SECONDS + 0.5

    async def test_a_redis_that_is_silent_is_asked_once_a_second(self, silent: tuple[SilentServer, Redis]) -> None:
        now = [0.0]
        limiter = RedisRateLimiter(silent[1], per_second=NEVER, burst=1000, monotonic=lambda: now[0])
        await limiter.admit(uuid4())
        asked = silent[0].commands
        now[0] += rate_limiter.BACK_OFF_SECONDS
        await asyncio.gather(*(limiter.admit(uuid4()) for _ in range(50)))
        assert silent[0].commands == 2 * asked

    async def test_the_operator_is_told_once(self, refusing: Redis, caplog: pytest.LogCaptureFixture) -> None:
        limiter = RedisRateLimiter(refusing, per_second=NEVER, burst=1000)
        with caplog.at_level(logging.INFO):
            await admitted(limiter, uuid4(), 50)
        assert [record.getMessage() for record in caplog.records] == [
            "Redis does not answer (ConnectionError): each replica limits calls by itself"
        ]

    async def test_replicas_share_the_limit_again_when_redis_is_back(self, redis: Redis, refusing: Redis) -> None:
        now = [0.0]
        limiter = RedisRateLimiter(redis, per_second=NEVER, burst=1000, monotonic=lambda: now[0])
        limiter._take = refusing.register_script("return nil")
        principal = uuid4()
        await limiter.admit(principal)
        limiter._take = redis.register_script(rate_limiter._TAKE)
        now[0] += rate_limiter.BACK_OFF_SECONDS
        await limiter.admit(principal)
        assert await redis.exists(f"chatback:calls:{{{principal}}}")
