"""Health pages: what is needed decides, what is asked is asked gently."""

import asyncio
import json

import pytest

from domain.errors import DatabaseUnavailable
from entrypoints.rest import probes
from entrypoints.rest.probes import Readiness, alive


class Dependency:
    """Something that answers, or does not."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self) -> None:
        self.asked += 1
        await self.goes_on.wait()
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "REMEMBERED_SECONDS", -1)


async def test_a_process_that_answers_is_alive() -> None:
    assert (await alive()).status == 200


async def test_every_dependency_is_told_by_name() -> None:
    answer = await Readiness({"database": Dependency()}, {"redis": Dependency()}).answer()
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {"status": "ready", "dependencies": {"database": "ok", "redis": "ok"}},
    )


@pytest.mark.parametrize("error", [DatabaseUnavailable(), OSError("hunter2"), RuntimeError("hunter2")])
async def test_without_what_is_needed_it_is_not_ready_and_tells_no_more_than_that(error: Exception) -> None:
    database = Dependency()
    database.error = error
    answer = await Readiness({"database": database}, {"redis": Dependency()}).answer()
    assert (answer.status, json.loads(answer.body)) == (
        503,
        {"status": "not ready", "dependencies": {"database": "unavailable", "redis": "ok"}},
    )


async def test_without_what_it_can_do_without_it_is_ready() -> None:
    redis = Dependency()
    redis.error = OSError()
    answer = await Readiness({"database": Dependency()}, {"redis": redis}).answer()
    assert (answer.status, json.loads(answer.body)["dependencies"]["redis"]) == (200, "unavailable")


async def test_silence_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CHECK_SECONDS", 0.01)
    database = Dependency()
    database.goes_on.clear()
    assert (await Readiness({"database": database}, {}).answer()).status == 503


async def test_it_is_ready_again_when_what_is_needed_is_back() -> None:
    database = Dependency()
    database.error = DatabaseUnavailable()
    readiness = Readiness({"database": database}, {})
    assert (await readiness.answer()).status == 503
    database.error = None
    assert (await readiness.answer()).status == 200


async def test_many_who_ask_at_once_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "REMEMBERED_SECONDS", 1)
    database = Dependency()
    readiness = Readiness({"database": database}, {})
    await asyncio.gather(*(readiness.answer() for _ in range(50)))
    assert database.asked == 1
