"""The same disbelief over REST: event streams are read as they come, and each event is looked at."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from google.protobuf import json_format

from bench.client import Transcript, WrongAnswerError
from bench.http_wire import SILENT_SECONDS, chunks, head_of, request_of
from bench.upstream import content_length
from chatback.v1.conversation_service_pb2 import GetConversationRequest, GetConversationResponse


class Delta(msgspec.Struct):
    """A piece of the text."""

    text: str


class Whole(msgspec.Struct):
    """A message."""

    content: str


class Completed(msgspec.Struct):
    """A good end."""

    message: Whole


class Event(msgspec.Struct, rename="camel"):
    """What is looked at of a RunEvent."""

    seq: int
    text_delta: Delta | None = None
    completed: Completed | None = None


class Response(msgspec.Struct):
    """A SendMessageResponse."""

    event: Event


DECODER = msgspec.json.Decoder(Response)


@dataclass(frozen=True, slots=True)
class RestClient:
    """A signed-in user over REST."""

    address: str
    metadata: tuple[tuple[str, str], ...]

    def get_conversation(self, request: GetConversationRequest) -> bytes:
        """Returns the request that gets a conversation."""
        return request_of(f"GET /v1/conversations/{request.conversation_id}", (("host", self.address), *self.metadata))

    async def conversation(self, request: GetConversationRequest, response: GetConversationResponse) -> bytes:
        """Gets a conversation as JSON, which must mean this response."""
        async with self._connection(self.get_conversation(request)) as reader, asyncio.timeout(SILENT_SECONDS):
            body = await reader.readexactly(content_length(await head_of(reader)))
        if json_format.Parse(body, GetConversationResponse()) != response:
            raise WrongAnswerError("REST says of a conversation what gRPC does not")
        return body

    async def ask(self, conversation_id: str, text: str) -> AsyncIterator[str]:
        """Sends a message and yields the kind of each event of the answer, which must be exactly this text.

        Every answer has a connection of its own.
        """
        start = f"POST /v1/conversations/{conversation_id}/messages:send"
        headers = (("host", self.address), ("connection", "close"), *self.metadata)
        transcript = Transcript()
        async with self._connection(request_of(start, headers, b'{"content":"hi"}')) as reader:
            await head_of(reader)
            async for event in events(reader):
                yield transcript.add(*said_in(event))
        transcript.check(text)

    @asynccontextmanager
    async def _connection(self, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
        """Sends a request on a new connection and yields what comes back."""
        host, port = self.address.split(":")
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), SILENT_SECONDS)
        try:
            writer.write(request)
            yield reader
        except asyncio.IncompleteReadError:
            raise WrongAnswerError("the connection was closed in the middle of a response") from None
        finally:
            writer.close()


async def events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yields the events of a stream without the comments between them."""
    part = b""
    async for chunk in chunks(reader):
        *whole, part = (part + chunk).split(b"\n\n")
        for event in whole:
            if not event.startswith(b":"):
                yield event
    if part:
        raise WrongAnswerError("the stream ended in the middle of an event")


def said_in(event: bytes) -> tuple[int, str, str]:
    """Returns an event's seq, its kind, and the text in it; of what is no part of an answer, all there is."""
    fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
    if fields.keys() != {b"id", b"event", b"data"}:
        raise WrongAnswerError(f"this is no event of a run: {event.decode()}")
    kind, data = fields[b"event"].decode(), fields[b"data"]
    said = DECODER.decode(data).event
    if said.seq != int(fields[b"id"]):
        raise WrongAnswerError(f"event {said.seq} has the id {fields[b'id'].decode()}")
    if said.text_delta:
        return said.seq, kind, said.text_delta.text
    return said.seq, kind, said.completed.message.content if said.completed else data.decode()
