"""How long to wait before something is tried again."""

import asyncio
import random
import time

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 3.0


class Pauses:
    """Waits, longer each time, up to a moment of the monotonic clock."""

    def __init__(self, ends: float) -> None:
        self._ends = ends
        self._next = FIRST_SECONDS

    async def wait(self, at_least: float | None = None) -> bool:
        """Returns True when it is time to try again, False at once if that would be too late."""
        # The jitter keeps callers apart that were all cut off at the same moment.
        seconds = (at_least or 0) + self._next * random.uniform(0.5, 1.5)  # noqa: S311
        if time.monotonic() + seconds >= self._ends:
            return False
        await asyncio.sleep(seconds)
        self._next = min(self._next * 2, LONGEST_SECONDS)
        return True
