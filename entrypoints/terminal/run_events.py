"""Watching a run to its end, whatever happens to the connection."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import grpc

from chatback.v1 import chat_service_pb2, run_pb2
from entrypoints.terminal.failures import TerminalError
from entrypoints.terminal.session import Opening, Session

PATIENCE_SECONDS = 30
"""How long a lost connection is tried for before the run is left alone."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3
LAST_EVENTS = frozenset({"completed", "failed", "cancelled"})

_ABOUT_THE_STREAM = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,  # the connection broke, or the replica sends its watchers away
        grpc.StatusCode.CANCELLED,  # a server that stops resets its streams; leaving a stream ourselves is no error
        grpc.StatusCode.DEADLINE_EXCEEDED,  # the stream was open for as long as one may be
    }
)


async def follow(
    session: Session, opening: Opening, on_loss: Callable[[], None]
) -> AsyncGenerator[run_pb2.RunEvent, None]:
    """Yields a run's events, each once and in order, over as many streams as it takes; on_loss is told of breaks.

    The opening should have a request_id, for it is repeated until the first event has come; from then on the stream
    is resumed behind the newest event. Raises AioRpcError or TerminalError when that does not help.
    """
    request, patience = opening, _Patience()
    while True:
        cause: Exception = TerminalError(
            "the service ends the stream of the answer before its end; its log may say why"
        )
        try:
            async with aclosing(session.stream(request)) as events:
                async for event in events:
                    patience.renew()
                    request = chat_service_pb2.StreamRunRequest(run_id=event.run_id, after_seq=event.seq)
                    yield event
                    if event.WhichOneof("event") in LAST_EVENTS:
                        return
        except grpc.aio.AioRpcError as error:
            if error.code() not in _ABOUT_THE_STREAM and not session.forget_refused_token(error):
                raise
            cause = error
        if patience.is_whole:
            on_loss()
        if not await patience.wait():
            raise cause


class _Patience:
    """Waits between attempts, longer each time, and ends some time after the first that was in vain."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begins anew: an attempt went well."""
        self._ends: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def is_whole(self) -> bool:
        """Says whether nothing was in vain so far."""
        return self._ends is None

    async def wait(self) -> bool:
        """Returns True when it is time for the next attempt, False when there should be none."""
        self._ends = self._ends or time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() + self._pause > self._ends:
            return False
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        return True
