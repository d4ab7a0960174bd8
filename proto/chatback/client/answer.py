"""An answer that is watched to its end, whatever happens to the connection."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from chatback.client.errors import AnswerError, ChatBackError
from chatback.client.pauses import Pauses
from chatback.v1 import chat_service_pb2, conversation_pb2, run_pb2
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub

LAST_EVENTS = frozenset({"completed", "failed", "cancelled"})
UNFINISHED = "the service ended the stream before the answer's last event"

Stream: TypeAlias = "grpc.aio.UnaryStreamCall[Any, Any]"


class Answer:
    """The events of one run as an asynchronous iterator: each once, in order, over as many streams as it takes.

    - Ends after the run's last event. Raises ChatBackError if the run can't be watched any longer; the run goes on.
    - `run_id`, `seq` and `text` are of the events so far. The text is void again after an `attempt_reset`.
    - `on_break`, where it is set, is told when the stream breaks, once until the next event: people like to know.
    - Who leaves before the end should use it as a context manager, so that the stream is closed at once.
    - Who wants the whole alone awaits `message()`.
    """

    def __init__(
        self,
        runs: ChatServiceStub,
        *,
        patience_seconds: float,
        ask: Callable[[], Stream] | None = None,
        run_id: str = "",
        after_seq: int = 0,
    ) -> None:
        self._runs = runs
        self._ask = ask
        self._patience_seconds = patience_seconds
        self._pieces: list[str] = []
        self._newest = run_pb2.RunEvent()
        self._has_begun = False
        self._events = self._follow()
        self.on_break: Callable[[ChatBackError], None] | None = None
        self.run_id = run_id
        self.seq = after_seq

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return "".join(self._pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> run_pb2.RunEvent:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._events.aclose()

    async def message(self) -> conversation_pb2.Message:
        """Waits for the end of the answer, and returns it. Raises AnswerError if it failed or was cancelled."""
        async with self:
            async for _ in self:
                pass
        if not self._newest.HasField("completed"):
            raise AnswerError(self._newest, self.text)
        return self._newest.completed.message

    async def _follow(self) -> AsyncGenerator[run_pb2.RunEvent, None]:
        """Yields the events of one stream after the other."""
        losses = _Losses(self._patience_seconds)
        while True:
            loss = ChatBackError(grpc.StatusCode.UNKNOWN, UNFINISHED)
            try:
                async with aclosing(self._stream()) as events:
                    async for event in events:
                        losses.forget()
                        yield event
                        if event.WhichOneof("event") in LAST_EVENTS:
                            return
                if self._ask is None and not self._has_begun:  # the watcher's cursor was at the end already
                    return
            except ChatBackError as error:
                loss = error
            if losses.is_first(loss) and self.on_break is not None:
                self.on_break(loss)
            await losses.bear(loss)

    async def _stream(self) -> AsyncGenerator[run_pb2.RunEvent, None]:
        call = self._open()
        try:
            async for response in call:
                self._take(response.event)
                yield response.event
        finally:
            call.cancel()

    def _open(self) -> Stream:
        """Asks for the answer until its run is known, and from then on for what comes after the newest event."""
        if self._ask is not None and not self._has_begun:
            return self._ask()
        return self._runs.StreamRun(chat_service_pb2.StreamRunRequest(run_id=self.run_id, after_seq=self.seq))

    def _take(self, event: run_pb2.RunEvent) -> None:
        self._has_begun, self._newest = True, event
        self.run_id, self.seq = event.run_id, event.seq
        if event.HasField("text_delta"):
            self._pieces.append(event.text_delta.text)
        elif event.HasField("attempt_reset"):
            self._pieces.clear()


class _Losses:
    """What an answer puts up with between two events."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self.forget()

    def forget(self) -> None:
        """Begins anew: something came."""
        self._pauses: Pauses | None = None
        self._was_refused = False

    def is_first(self, error: ChatBackError) -> bool:
        """Says whether the stream broke just now."""
        return self._pauses is None and _is_break(error)

    async def bear(self, error: ChatBackError) -> None:
        """Returns when the next stream may be tried. Raises the error if none should be."""
        if error.is_about_the_token and not self._was_refused:
            self._was_refused = True
            return
        is_full = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is not None
        if not is_full and not _is_break(error):
            raise error
        self._pauses = self._pauses or Pauses(time.monotonic() + self._patience_seconds)
        if not await self._pauses.wait(error.retry_after):
            raise error


def _is_break(error: ChatBackError) -> bool:
    # A stream may be open for so long and no longer; the answer is not bound to it.
    return error.is_about_the_connection or error.code is grpc.StatusCode.DEADLINE_EXCEEDED
