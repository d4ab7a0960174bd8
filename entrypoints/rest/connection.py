"""One HTTP connection, with the bounds that uvicorn's own has not: on the size of a request's head and on its time."""

import asyncio
from collections import deque
from typing import Any, NoReturn
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from entrypoints.rest.body import LINGER_SECONDS
from entrypoints.rest.failures import refusal_answer
from entrypoints.rest.refusals import (
    HEADERS_TOO_LARGE,
    LENGTH_MISSING,
    NOT_HTTP,
    REQUEST_TOO_SLOW,
    Refusal,
    Refused,
)

HEAD_BYTES = 16 << 10
HEAD_SECONDS = 10
"""How long a head may take: from when the connection was made, or from its first byte on."""
HEAD = b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: close\r\n\r\n"
"""What goes before the words of a refusal; of the request it knows nothing for certain, so the id is new."""
WITH_BODY = (b"POST", b"PUT", b"PATCH")
LENGTHS = (b"content-length", b"transfer-encoding")


class Connection(HttpToolsProtocol):
    """Refuses what is no request, too large or too slow, before the application sees it, in the words of the API."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._refusal = NOT_HTTP
        self._is_refused = False
        self._in_head = True
        self._head_bytes = 0
        self._hurry: asyncio.TimerHandle | None = None
        self._cycles: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells every request that is being answered; uvicorn tells the newest alone, whatever it waits behind."""
        self._stop_waiting()
        super().connection_lost(exc)
        self._leave_all()

    def data_received(self, data: bytes) -> None:
        """Takes what came; what is no head yet must become one in time, and in little space."""
        if self._is_refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        self._look_at_the_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header of the head; what follows a body as a trailer was checked by nobody and counts for nothing."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Lets the application have the request, unless it is refused here."""
        self._stop_waiting()
        self._in_head, self._head_bytes = False, 0
        names = {name for name, _ in self.headers}
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse(HEADERS_TOO_LARGE)
        if self.parser.get_method() in WITH_BODY and names.isdisjoint(LENGTHS):
            self._refuse(LENGTH_MISSING)
        super().on_headers_complete()
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        self._cycles.append(self.cycle)

    def on_message_complete(self) -> None:
        """Begins to count the next head."""
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """Tells why there is no request, and closes when the client has had a moment to read that."""
        if self.transport.is_closing():
            return
        request_id = str(uuid4())
        answer = refusal_answer(Refused(self._refusal), request_id)
        head = STATUS_LINE[answer.status] + HEAD
        self._stop_waiting()
        self._leave_all()
        self._is_refused = True
        self.transport.write(head % (answer.media_type, len(answer.body), request_id.encode()) + answer.body)
        self.transport.write_eof()
        self._hurry = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _refuse(self, refusal: Refusal) -> NoReturn:
        """Stops the parser, which then has a refusal sent."""
        self._refusal = refusal
        raise Refused(refusal)

    def _give_up(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.send_400_response(refusal.message)

    def _look_at_the_head(self) -> None:
        if self._is_refused:
            return
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._give_up(HEADERS_TOO_LARGE)
        elif self.cycle is None or self.cycle.response_complete:
            self._expect_head()

    def _leave_all(self) -> None:
        for cycle in self._cycles:
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()

    def _expect_head(self) -> None:
        if self._hurry is None:
            self._hurry = self.loop.call_later(HEAD_SECONDS, self._give_up, REQUEST_TOO_SLOW)

    def _stop_waiting(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
