"""The whole of the HTTP side as one ASGI application: the API, and the pages beside it."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from application.ports.clock import Clock
from entrypoints.grpc.pipeline import REQUEST_ID
from entrypoints.rest.answers import Answer
from entrypoints.rest.body import Headers, Incoming
from entrypoints.rest.failures import answer_for, refusal_answer
from entrypoints.rest.refusals import PREFLIGHT_REFUSED, Header, Refused
from entrypoints.rest.routes import not_allowed
from entrypoints.rest.transcoder import Transcoder

Page = Callable[[], Awaitable[Answer]]
FOLDER = Path(__file__).parent
FILES = {"/openapi.json": ("openapi.json", b"application/json"), "/docs": ("docs.html", b"text/html; charset=utf-8")}

REQUEST_HEADERS = ("authorization", "content-type", "last-event-id", "traceparent", "x-chatback-user", "x-request-id")


@dataclass(frozen=True, slots=True)
class RestApp:
    """Answers requests, also those that go wrong. `pages` are what is not the API, by path."""

    transcoder: Transcoder
    pages: Mapping[str, Page]
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one HTTP request."""
        incoming = Incoming(dict(scope["headers"]), receive)
        request_id = self._request_id(incoming.headers)
        try:
            if page := self.pages.get(scope["path"]):
                await _show(page, scope["method"], send, request_id)
            else:
                await self.transcoder.serve(scope, incoming, request_id, send)
        except Exception as error:  # noqa: BLE001 - logged there, with the incident that the caller is told
            await _refuse(answer_for(error, self.clock, request_id), send, incoming, request_id)

    def _request_id(self, headers: Headers) -> str:
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        return given if REQUEST_ID.fullmatch(given) else str(self.clock.new_id())


def files() -> dict[str, Page]:
    """Returns the pages that lie beside this module as files."""
    found = {path: (FOLDER / name, kind) for path, (name, kind) in FILES.items() if (FOLDER / name).exists()}
    return {path: _file(file.read_bytes(), kind) for path, (file, kind) in found.items()}


def policy_for(page: bytes) -> Header:
    """Returns the header that lets a page run what stands in it and ask this service, and reach nothing else."""
    allowed = [
        b"%b-src 'sha256-%b'" % (kind, base64.b64encode(hashlib.sha256(text).digest()))
        for kind, text in re.findall(rb"<(script|style)>(.*?)</", page, re.DOTALL)
    ]
    rest = (
        b"connect-src 'self'",
        b"img-src data:",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    )
    return b"content-security-policy", b"; ".join((b"default-src 'none'", *allowed, *rest))


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Returns the application, open to scripts of pages from these origins; `*` is any. They send no cookies."""
    if not origins:
        return app
    return Cors(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=REQUEST_HEADERS,
        expose_headers=("retry-after", "x-request-id"),
    )


class Cors(CORSMiddleware):
    """Refuses in the words of the API."""

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        """Answers what a browser asks in advance."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        request_id = str(uuid4())
        answer = refusal_answer(Refused(PREFLIGHT_REFUSED), request_id)
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        headers = {**kept, "x-request-id": request_id}
        return Response(answer.body, answer.status, headers, answer.media_type.decode())


async def _show(page: Page, verb: str, send: Send, request_id: str) -> None:
    if verb not in ("GET", "HEAD"):
        raise not_allowed(["GET", "HEAD"])
    await (await page()).send(send, request_id)


async def _refuse(answer: Answer, send: Send, incoming: Incoming, request_id: str) -> None:
    """Sends the answer; where a body is still coming, the connection ends with it, as nobody wants that body."""
    if not incoming.is_pending:
        await answer.send(send, request_id)
        return
    closing = Answer(answer.status, answer.body, headers=(*answer.headers, (b"connection", b"close")))
    await closing.send(send, request_id, ends=False)
    await incoming.discard()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _file(content: bytes, kind: bytes) -> Page:
    headers = (policy_for(content),) if kind.startswith(b"text/html") else ()
    answer = Answer(200, content, kind, headers)

    async def page() -> Answer:
        return answer

    return page
