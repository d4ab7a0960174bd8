"""What every clock owes its callers."""

from datetime import timedelta

import pytest

from adapters.security.clock import SystemClock
from application.ports.clock import Clock
from tests.fakes.clock import FakeClock


class ClockContract:
    async def test_the_time_is_in_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta(0)

    async def test_ids_are_uuids_of_version_7(self, clock: Clock) -> None:
        assert clock.new_id().version == 7

    async def test_no_id_comes_twice(self, clock: Clock) -> None:
        assert len({clock.new_id() for _ in range(10_000)}) == 10_000

    async def test_an_id_carries_the_time_it_was_made_at(self, clock: Clock) -> None:
        milliseconds = clock.new_id().int >> 80
        assert abs(milliseconds / 1000 - clock.now().timestamp()) < 1


class TestFakeClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return FakeClock()


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()
