"""HTTP requests as calls of the gRPC server: nothing but the form of things is decided here."""

from dataclasses import dataclass

import grpc
from starlette.types import Receive, Scope, Send

from application.ports.clock import Clock
from entrypoints.grpc.pipeline import UNARY_SECONDS
from entrypoints.rest.answers import Answer, error_json
from entrypoints.rest.body import Headers, read_body
from entrypoints.rest.events import EventStream, Frame, error_frame
from entrypoints.rest.failures import status_for
from entrypoints.rest.forwarding import metadata_for
from entrypoints.rest.proto_json import to_json
from entrypoints.rest.refusals import HTTP_TOO_OLD, Refused
from entrypoints.rest.routes import Routes

MARGIN_SECONDS = 1
"""How much longer than the pipeline the shim waits, so that the answer is the pipeline's."""


@dataclass(frozen=True, slots=True)
class Transcoder:
    """Calls the method that a path leads to. `max_body` is in bytes."""

    routes: Routes
    clock: Clock
    max_body: int

    async def serve(self, scope: Scope, headers: Headers, request_id: str, receive: Receive, send: Send) -> None:
        """Answers one request. Raises what goes wrong before the answer has begun."""
        body = await read_body(headers, receive, self.max_body)
        route, values = self.routes.find(scope["method"], scope["raw_path"].decode())
        message = route.message(
            values, scope["query_string"].decode(), body, headers.get(b"last-event-id", b"") if route.resumes else b""
        )
        metadata = metadata_for(scope, headers, request_id)
        if route.streams:
            if scope["http_version"] == "1.0":
                raise Refused(HTTP_TOO_OLD, (b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade"))
            stream = EventStream(route.call(message, metadata=metadata), receive, send, request_id)
            await self._relay(stream, route.frame, request_id)
        else:
            response = await route.call(message, metadata=metadata, timeout=UNARY_SECONDS + MARGIN_SECONDS)
            await Answer(200, to_json(response, route.response_body)).send(send, request_id)

    async def _relay(self, stream: EventStream, frame: Frame, request_id: str) -> None:
        try:
            await stream.relay(frame)
        except grpc.aio.AioRpcError as error:
            if not stream.has_begun:
                raise
            await stream.write(error_frame(error_json(status_for(error, self.clock, request_id))))
        await stream.end()
