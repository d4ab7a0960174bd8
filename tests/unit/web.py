"""The REST side in this process, in front of a service that does what a test says, and raw HTTP to talk to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from chatback.v1 import auth_service_pb2, chat_service_pb2, conversation_service_pb2, run_pb2
from chatback.v1.auth_service_pb2_grpc import AuthServiceServicer, add_AuthServiceServicer_to_server
from chatback.v1.chat_service_pb2_grpc import ChatServiceServicer, add_ChatServiceServicer_to_server
from chatback.v1.conversation_service_pb2_grpc import (
    ConversationServiceServicer,
    add_ConversationServiceServicer_to_server,
)
from entrypoints.grpc.server import SERVICES
from entrypoints.rest.app import Page, RestApp, with_cors
from entrypoints.rest.body import Bodies
from entrypoints.rest.http_rules import http_rules
from entrypoints.rest.routes import routes_over
from entrypoints.rest.server import RestServer, channel_to, listen, private_address
from entrypoints.rest.transcoder import Transcoder
from tests.builders import a_caller
from tests.unit.edge import Gate

Context = grpc.aio.ServicerContext[Any, Any]
MAX_BODY = 1 << 20
ID = "01a2034a-1359-740f-b7fe-867333e927d0"


class Scripted(ConversationServiceServicer, ChatServiceServicer, AuthServiceServicer):
    """Keeps what it is asked, and answers as the test says."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.behave: Callable[[], Awaitable[object]] = self.nothing
        self.events: Callable[[], AsyncIterator[run_pb2.RunEvent]] = self.no_events
        self.open = 0
        self.title = ""
        self.caller = a_caller()

    async def nothing(self) -> None:
        """Lets the call succeed."""

    async def no_events(self) -> AsyncIterator[run_pb2.RunEvent]:
        """Ends the stream at once."""
        nothing: list[run_pb2.RunEvent] = []
        for event in nothing:
            yield event

    async def GetConversation(
        self, request: conversation_service_pb2.GetConversationRequest, context: Context
    ) -> conversation_service_pb2.GetConversationResponse:
        await self._take(request, context)
        response = conversation_service_pb2.GetConversationResponse()
        if self.title:
            response.conversation.title = self.title
        return response

    async def CreateConversation(
        self, request: conversation_service_pb2.CreateConversationRequest, context: Context
    ) -> conversation_service_pb2.CreateConversationResponse:
        await self._take(request, context)
        return conversation_service_pb2.CreateConversationResponse()

    async def Login(self, request: auth_service_pb2.LoginRequest, context: Context) -> auth_service_pb2.LoginResponse:
        await self._take(request, context)
        return auth_service_pb2.LoginResponse()

    async def StreamRun(
        self, request: chat_service_pb2.StreamRunRequest, context: Context
    ) -> AsyncIterator[chat_service_pb2.StreamRunResponse]:
        self.open += 1
        try:
            await self._take(request, context)
            async for event in self.events():
                yield chat_service_pb2.StreamRunResponse(event=event)
        finally:
            self.open -= 1

    async def _take(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        await self.behave()


def a_service() -> Scripted:
    """Returns a service that nobody has asked anything."""
    return Scripted()  # type: ignore[abstract]  # what it leaves out answers UNIMPLEMENTED


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo in an error's body."""
        return str(self.json["error"]["details"][0]["reason"])


class Connection:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._writer.write(data)

    async def head(self) -> Reply:
        """Reads a status line and headers."""
        async with asyncio.timeout(5):
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Reply(int(first.split()[1]), headers, b"")

    async def reply(self, *, verb: str = "GET") -> Reply:
        """Reads one whole answer."""
        head = await self.head()
        async with asyncio.timeout(5):
            if head.headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self.chunks()])
            else:
                length = int(head.headers.get("content-length", "0")) if verb != "HEAD" else 0
                body = await self._reader.readexactly(length)
        return Reply(head.status, head.headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the chunks of a body to its end."""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)

    async def rest(self) -> bytes:
        """Reads until the server closes the connection."""
        async with asyncio.timeout(5):
            return await self._reader.read()

    async def close(self) -> None:
        """Leaves without a word."""
        self._writer.transport.abort()
        await asyncio.sleep(0)


class Web:
    """The server under test, and somebody who may call."""

    def __init__(self, port: int, gate: Gate, service: Scripted) -> None:
        self.port = port
        self.gate = gate
        self.service = service
        (_, self.authorization), *_ = gate.metadata(service.caller)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yields a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        connection = Connection(reader, writer)
        try:
            yield connection
        finally:
            await connection.close()

    def request(self, verb: str, path: str, body: object = None, **headers: str | None) -> bytes:
        """Returns a request as bytes, signed unless `authorization` says otherwise; a header of None is left out."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields: dict[str, str | None] = {"host": "x", "authorization": self.authorization}
        if body is not None or verb in ("POST", "PATCH", "PUT"):
            fields |= {"content_type": "application/json", "content_length": str(len(content))}
        fields |= headers
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value is not None]
        return f"{verb} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1") + content

    async def left(self, seconds: float = 0.1) -> None:
        """Returns when no stream is open any more; fails when that takes longer."""
        async with asyncio.timeout(seconds):
            while self.service.open:  # noqa: ASYNC110 - it is gRPC that has to hear of it
                await asyncio.sleep(0)

    async def watched(self) -> None:
        """Returns when a stream is open."""
        async with asyncio.timeout(5):
            while not self.service.open:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0)

    async def call(self, verb: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """Makes one request on a connection of its own."""
        async with self.connection() as connection:
            connection.send(self.request(verb, path, body, **headers))
            return await connection.reply(verb=verb)


@asynccontextmanager
async def serving_web(
    *, pages: Mapping[str, Page] | None = None, origins: tuple[str, ...] = (), proxies: tuple[str, ...] = ()
) -> AsyncIterator[Web]:
    """Serves the scripted service over REST on a port of its own."""
    gate = Gate(open_streams=100)
    service = a_service()
    await gate.ended.poll()
    server = grpc.aio.server(interceptors=[gate.pipeline])
    add_ConversationServiceServicer_to_server(service, server)
    add_ChatServiceServicer_to_server(service, server)
    add_AuthServiceServicer_to_server(service, server)
    with private_address() as address:
        server.add_insecure_port(address)
        await server.start()
        async with channel_to(address) as channel:
            transcoder = Transcoder(routes_over(channel, http_rules(SERVICES)), gate.clock, Bodies(MAX_BODY))
            app = with_cors(RestApp(transcoder, pages or {}, gate.clock), origins)
            rest = RestServer(app, listen("127.0.0.1", 0), trusted_proxies=proxies, grace_seconds=1)
            rest.start(lambda task: None)
            yield Web(rest.port, gate, service)
            await asyncio.gather(server.stop(0), rest.stop())
