"""HTTP requests as calls of the gRPC server: nothing but the form of things is decided here."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from starlette.types import Scope, Send

from application.ports.clock import Clock
from domain.errors import TokenInvalid
from entrypoints.grpc.pipeline import UNARY_SECONDS
from entrypoints.rest.answers import Answer, error_json
from entrypoints.rest.body import Bodies, Incoming
from entrypoints.rest.events import EventStream, Frame, error_frame
from entrypoints.rest.failures import status_for
from entrypoints.rest.forwarding import metadata_for
from entrypoints.rest.proto_json import to_json
from entrypoints.rest.refusals import HTTP_TOO_OLD, Refused
from entrypoints.rest.routes import Route, Routes

MARGIN_SECONDS = 1
"""How much longer than the pipeline the shim waits, so that the answer is the pipeline's."""


@dataclass(frozen=True, slots=True)
class Transcoder:
    """Calls the method that a path leads to."""

    routes: Routes
    clock: Clock
    bodies: Bodies

    async def serve(self, scope: Scope, incoming: Incoming, request_id: str, send: Send) -> None:
        """Answers one request. Raises what goes wrong before the answer has begun.

        Nothing is taken of a body before its path is known, and some credentials are there for the call to look at.
        """
        route, values = self.routes.find(scope["method"], scope["raw_path"].decode())
        metadata = metadata_for(scope, incoming.headers, request_id)
        if not route.is_public and b"authorization" not in incoming.headers:
            raise TokenInvalid
        if route.streams and scope["http_version"] == "1.0":
            raise Refused(HTTP_TOO_OLD, (b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade"))
        message = await self._message(route, values, scope, incoming)
        if route.streams:
            stream = EventStream(route.call(message, metadata=metadata), incoming.receive, send, request_id)
            await self._relay(stream, route.frame, request_id)
        else:
            response = await route.call(message, metadata=metadata, timeout=UNARY_SECONDS + MARGIN_SECONDS)
            await Answer(200, to_json(response, route.response_body)).send(send, request_id)

    async def _message(self, route: Route, values: tuple[str, ...], scope: Scope, incoming: Incoming) -> Message:
        """Returns the request of the call; the body that it was made of is kept no longer."""
        async with self.bodies.taken(incoming) as body:
            last_event_id = incoming.headers.get(b"last-event-id", b"")
            return route.message(values, scope["query_string"].decode(), body, last_event_id)

    async def _relay(self, stream: EventStream, frame: Frame, request_id: str) -> None:
        try:
            await stream.relay(frame)
        except grpc.aio.AioRpcError as error:
            if not stream.has_begun:
                raise
            await stream.write(error_frame(error_json(status_for(error, self.clock, request_id))))
        await stream.end()
