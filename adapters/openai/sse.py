"""The event stream of an answer, decoded as its bytes arrive."""

from typing import Any

from adapters.openai.chunk import Choice, Chunk, TokenCounts, chunk_from, error_from

LINE_LIMIT = 1 << 20
"""A longer line, in bytes, is no part of an answer: it breaks the stream."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class StreamDecoder:
    """Takes the bytes of one response, cut anywhere, and gives the text of the events that are whole.

    What else was said is kept: `finish_reason`, `usage`, and `error` where the endpoint reported one. `events` counts
    the events. `ended` says that nothing more can come: after `[DONE]`, an error, what is no event stream, or `close`.
    """

    __slots__ = ("_name", "_partial", "_rest", "_stray", "_text", "ended", "error", "events", "finish_reason", "usage")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage = TokenCounts()
        self.error: Any = None
        self.events = 0
        self.ended = False
        self._rest = b""
        self._text: list[str] = []
        self._name = b""
        self._partial = bytearray()
        self._stray = bytearray()

    def feed(self, data: bytes) -> str:
        """Returns the text in the events that these bytes complete."""
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            data = _with_line_feeds(data)
        end = data.rfind(b"\n")
        self._rest = data[end + 1 :]
        if end >= 0:
            for line in data[:end].split(b"\n"):
                if line.startswith(b"data: {") and not self._partial:
                    self._event(line[6:])
                else:
                    self._line(line)
        if self._rest:
            self._check_length(self._rest)
        return self._new_text() if self._text else ""

    def close(self) -> str:
        """Takes the end of the response; returns the text in a last line that has no end of its own."""
        self._line(self._rest.rstrip(b"\r"))
        self._line(b"")
        if self._stray and not self.events:
            self._event(bytes(self._stray))
        self.ended = True
        return self._new_text()

    def _line(self, line: bytes) -> None:
        if line:
            self._field(line.removeprefix(_BYTE_ORDER_MARK))
        elif self._partial or self._name:
            self._end_event()

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data" and self._partial:
            self._partial += b"\n" + value
            self._check_length(self._partial)
        elif name == b"data":
            self._event(value)
        elif name == b"event":
            self._name = value
        elif name and not self.events:
            # No event stream, perhaps: an endpoint may answer with a plain JSON document.
            self._stray += line + b"\n"
            self._check_length(self._stray)

    def _event(self, payload: bytes) -> None:
        """Takes an event's data; what is no JSON document yet may go on in the event's next line."""
        self._check_length(payload)
        if self.ended:
            return
        try:
            self._chunk(error_from(payload) if self._name == b"error" else chunk_from(payload))
        except ValueError:
            if payload.rstrip() == b"[DONE]":
                self.ended = True
            else:
                self._partial += payload

    def _end_event(self) -> None:
        if self._partial:
            payload = bytes(self._partial)
            self._partial.clear()
            self._event(payload)
            # Still no JSON: something is missing from the answer.
            self.ended = self.ended or bool(self._partial.strip())
            self._partial.clear()
        self._name = b""

    def _chunk(self, chunk: Chunk) -> None:
        self.events += 1
        for choice in chunk.choices:
            if choice.index == 0:
                self._choice(choice)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.error:
            self.error = chunk.error
            self.ended = True

    def _choice(self, choice: Choice) -> None:
        said = choice.delta or choice.message
        if said is not None and said.content:
            self._text.append(said.content)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def _check_length(self, line: bytes | bytearray) -> None:
        if len(line) > LINE_LIMIT:
            self.ended = True

    def _new_text(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text


def _with_line_feeds(data: bytes) -> bytes:
    """Returns the bytes with every line end as LF; a CR at the end stays, as its LF may be on the way."""
    last = data[-1:] if data.endswith(b"\r") else b""
    return data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last
