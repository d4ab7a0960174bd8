"""Whether this process lives, and whether what it needs answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from entrypoints.rest.answers import Answer

CHECK_SECONDS = 2
"""How long a dependency may take to answer."""
REMEMBERED_SECONDS = 1
"""How long an answer holds: however often somebody asks, a dependency is asked once a second."""

Check = Callable[[], Awaitable[object]]
log = structlog.get_logger()


async def alive() -> Answer:
    """Answers that the event loop turns, whatever else is wrong."""
    return Answer(200, b'{"status":"alive"}')


class Readiness:
    """Asks each dependency by name. Those that the service can do without are told, and decide nothing."""

    def __init__(self, needed: Mapping[str, Check], optional: Mapping[str, Check]) -> None:
        self._needed = needed
        self._checks = {**needed, **optional}
        self._found: dict[str, str] = {}
        self._found_at = float("-inf")
        self._turn = asyncio.Lock()

    async def answer(self) -> Answer:
        """Answers 200 with what was found, 503 where something needed does not answer."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._found_at > REMEMBERED_SECONDS:
                states = await asyncio.gather(*map(self._state, self._checks))
                self._found, self._found_at = dict(zip(self._checks, states, strict=True)), now
        ready = all(self._found[name] == "ok" for name in self._needed)
        body = {"status": "ready" if ready else "not ready", "dependencies": self._found}
        return Answer(200 if ready else 503, msgspec.json.encode(body))

    async def _state(self, name: str) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._checks[name]()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
            log.warning("dependency.unavailable", dependency=name, error=type(error).__name__)
            return "unavailable"
        return "ok"
