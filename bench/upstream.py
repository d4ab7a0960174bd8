"""A model's endpoint for measuring: answers every POST with TOKENS chunks of an OpenAI-compatible stream.

    python -m bench.upstream PORT TOKENS [DELAY] [AT_ONCE] [--stamped]

Without a DELAY (seconds) the whole answer is written at once, the fastest a model could be; with one, a chunk each
DELAY, except for the first AT_ONCE answers, which warm up whoever asks. The texts are ' tok0', ' tok1' and so on, so
that a receiver can tell loss from duplication. A stamped text is the moment at which it is written instead, in
nanoseconds of the machine's monotonic clock, so that a receiver can tell how old it is.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import cast

import msgspec
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
AFTER_TEXT = 3
"""Parts of an answer that follow its text: why it ends, what it cost, and that it is whole."""


@dataclass(slots=True)
class Model:
    """What is answered, and how fast: `parts` are written `delay` seconds apart once `at_once` answers are spent."""

    parts: list[bytes]
    delay: float
    at_once: int
    stamped: bool

    def takes_its_time(self) -> bool:
        """Says whether the next answer is written part by part, and counts it."""
        self.at_once -= 1
        return bool(self.delay) and self.at_once < 0

    def part(self, position: int) -> bytes:
        """Returns the part to write now."""
        if self.stamped and 0 < position < len(self.parts) - AFTER_TEXT:
            return delta({"content": f" {time.monotonic_ns()}"})
        return self.parts[position]


class Answering(asyncio.Protocol):
    """One kept-alive connection that asks one question at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._asked = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own, which is no asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops talking to nobody."""
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answers as soon as the request is whole."""
        self._asked += data
        head, found, body = self._asked.partition(b"\r\n\r\n")
        if found and len(body) >= content_length(head):
            self._asked.clear()
            self._answer()

    def _answer(self) -> None:
        if self._model.takes_its_time():
            self._transport.write(HEAD)
            self._say(0, asyncio.get_running_loop().time())
        else:
            parts = map(self._model.part, range(len(self._model.parts)))
            self._transport.write(HEAD + b"".join(parts) + END)

    def _say(self, position: int, began: float) -> None:
        """Writes one part and plans the next by the clock, so that lateness does not add up."""
        if position == len(self._model.parts):
            self._transport.write(END)
            return
        self._transport.write(self._model.part(position))
        moment = began + (position + 1) * self._model.delay
        self._timer = asyncio.get_running_loop().call_at(moment, self._say, position + 1, began)


def content_length(head: bytes | bytearray) -> int:
    """Returns the length of the body that a request's head announces, 0 if it says nothing."""
    lines = (line.lower().partition(b":") for line in head.split(b"\r\n"))
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)


def answer(tokens: int) -> list[bytes]:
    """Returns the parts of an answer, each an event in a chunk of its own."""
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10}
    return [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": f" tok{i}"}) for i in range(tokens)),
        delta({}, finish="stop"),
        event({"choices": [], "usage": usage}),
        chunk(b"data: [DONE]\n\n"),
    ]


def delta(change: dict[str, str], finish: str | None = None) -> bytes:
    """Returns an event that lengthens the answer."""
    return event({"choices": [{"index": 0, "delta": change, "logprobs": None, "finish_reason": finish}]})


def event(body: dict[str, object]) -> bytes:
    """Returns a chat.completion.chunk as server-sent event."""
    frame = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench"}
    return chunk(b"data: " + msgspec.json.encode({**frame, **body}) + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Frames bytes as HTTP/1.1 does when nobody knows the whole length."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(port: int, model: Model) -> None:
    """Answers for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(model), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("port", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("delay", type=float, nargs="?", default=0.0)
    parser.add_argument("at_once", type=int, nargs="?", default=0)
    parser.add_argument("--stamped", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    parsed = arguments()
    uvloop.run(serve(parsed.port, Model(answer(parsed.tokens), parsed.delay, parsed.at_once, parsed.stamped)))
