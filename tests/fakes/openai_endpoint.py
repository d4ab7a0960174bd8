"""A small HTTP server on 127.0.0.1 that speaks Chat Completions by script: whole answers, and every way to fail.

async with OpenAIEndpoint() as endpoint:
    endpoint.script(refusal(429, retry_after="1"), answer("Hello", " world"))
    ...                                      # requests go to endpoint.base_url
    assert endpoint.requests[1].body["model"] == "gpt"
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

DONE = b"data: [DONE]\n\n"


class End(Enum):
    """How a response ends."""

    WHOLE = auto()
    """By the rules of HTTP, whether or not the answer in it is whole."""
    CUT = auto()
    """With the connection closed before HTTP's own end."""
    SILENT = auto()
    """Never: nothing more comes, and the connection stays open until the client closes it."""
    RESET = auto()
    """With a TCP reset."""


@dataclass(frozen=True, slots=True)
class Script:
    """One response. Each part is written on its own, `delay` seconds after the one before; an event is waited for."""

    parts: Sequence[bytes | asyncio.Event]
    delay: float = 0.0
    end: End = End.WHOLE
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    has_head: bool = True


@dataclass(slots=True)
class Request:
    """What a client sent. `disconnected` is set when it closed the connection before the response's end."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    connection: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


def event(content: object = None, *, finish: str | None = None, **fields: object) -> bytes:
    """Returns one chunk of an answer as an event; more fields of the chunk can be given or replaced."""
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "delta": {"content": content} if content is not None else {},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
    }
    return b"data: " + json.dumps({**chunk, **fields}).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    """Returns the event that states the cost."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event(choices=[], usage=counts)


def answer(
    *pieces: str | asyncio.Event, finish: str = "stop", tokens: tuple[int, int] | None = (3, 2), delay: float = 0.0
) -> Script:
    """Returns a whole answer. `tokens` are those of prompt and answer, None if the endpoint does not count."""
    cost = [usage(*tokens)] if tokens else []
    return Script([event(""), *_events(pieces), event(finish=finish), *cost, DONE], delay)


def unfinished(*pieces: str | asyncio.Event, end: End, delay: float = 0.0) -> Script:
    """Returns an answer that breaks off after these pieces, without a finish reason."""
    return Script(_events(pieces), delay, end)


def refusal(status: int, *, code: str | None = None, message: str = "no", retry_after: str | None = None) -> Script:
    """Returns an error response."""
    headers = {"Content-Type": "application/json", **({"Retry-After": retry_after} if retry_after is not None else {})}
    return Script([json.dumps({"error": {"message": message, "code": code}}).encode()], status=status, headers=headers)


def closed_without_response(end: End = End.RESET) -> Script:
    """Returns a script that takes the request and sends not even a head."""
    return Script([], end=end, has_head=False)


class OpenAIEndpoint:
    """Serves while its context is open. Scripts answer requests in turn; the last one answers all that follow.

    `requests` are all so far, and `received` is set with each.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.received = asyncio.Event()
        self._scripts: list[Script] = [answer("Hello", " world")]
        self._connections: set[asyncio.Task[None]] = set()
        self._connection_count = 0
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """Where clients are to be pointed."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def script(self, *scripts: Script) -> None:
        """Sets the responses to the following requests."""
        self._scripts = list(scripts)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection_count += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            await self._serve(reader, writer, self._connection_count)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        while not writer.is_closing():
            request = await _read_request(reader, connection)
            self.requests.append(request)
            self.received.set()
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            response = asyncio.create_task(_respond(writer, script))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait({response, gone}, return_when=asyncio.FIRST_COMPLETED)
            response.cancel()
            gone.cancel()
            if isinstance((await asyncio.gather(response, gone, return_exceptions=True))[0], BaseException):
                request.disconnected.set()
                writer.transport.abort()


def _events(pieces: Sequence[str | asyncio.Event]) -> list[bytes | asyncio.Event]:
    return [event(piece) if isinstance(piece, str) else piece for piece in pieces]


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Request(head[0].split()[1], headers, body, connection)


async def _respond(writer: asyncio.StreamWriter, script: Script) -> None:
    if script.has_head:
        headers = "".join(f"{name}: {value}\r\n" for name, value in script.headers.items())
        writer.write(f"HTTP/1.1 {script.status} -\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())
    for part in script.parts:
        if isinstance(part, asyncio.Event):
            await part.wait()
        else:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(script.delay)
    await _end(writer, script.end)


async def _end(writer: asyncio.StreamWriter, end: End) -> None:
    if end is End.SILENT:
        await asyncio.Event().wait()
    elif end is End.RESET:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif end is End.CUT:
        writer.close()
    else:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
