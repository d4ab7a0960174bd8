"""Doing without Redis while it does not answer."""

import logging
import time
from collections.abc import Callable

from redis.exceptions import RedisError

BACK_OFF_SECONDS = 1.0
# TimeoutError is an OSError; for a write to a connection that was lost a moment ago uvloop raises a RuntimeError.
NO_ANSWER = (RedisError, OSError, RuntimeError)

_log = logging.getLogger(__name__)


class Outage:
    """Remembers that Redis does not answer, so that few calls wait for it, and tells the operator twice: when it
    begins and when it is over.
    """

    def __init__(self, *, without: str, again: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Takes what follows from the outage, and what follows from its end, in the operator's words."""
        self._without = without
        self._again = again
        self._monotonic = monotonic
        self._until = 0.0

    def excuses(self) -> bool:
        """Says whether a call need not ask Redis: all but one a second while there is an outage."""
        now = self._monotonic()
        if now < self._until:
            return True
        if self._until:  # one call finds out whether it is back; the others need not wait for that
            self._until = now + BACK_OFF_SECONDS
        return False

    def goes_on(self, error: Exception) -> None:
        """Notes that Redis did not answer."""
        if not self._until:
            _log.warning("Redis does not answer (%s): %s", type(error).__name__, self._without)
        self._until = self._monotonic() + BACK_OFF_SECONDS

    def is_over(self) -> None:
        """Notes that Redis answered."""
        if self._until:
            _log.info("Redis answers again: %s", self._again)
        self._until = 0.0
