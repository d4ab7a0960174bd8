"""What is refused over HTTP before it becomes a call: the reasons that ErrorInfo carries besides those of gRPC."""

from dataclasses import dataclass

import grpc

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A cause, with the HTTP status, the status code beside it, and one sentence for the caller."""

    http: int
    code: grpc.StatusCode
    reason: str
    message: str


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
TOO_SLOW = grpc.StatusCode.DEADLINE_EXCEEDED

NOT_HTTP = Refusal(400, INVALID, "NOT_HTTP", "this is no HTTP request")
BODY_INCOMPLETE = Refusal(400, INVALID, "BODY_INCOMPLETE", "the body ended before its time")
PATH_UNKNOWN = Refusal(404, NOT_FOUND, "PATH_UNKNOWN", "there is nothing at this path")
METHOD_NOT_ALLOWED = Refusal(
    405, grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this path takes other methods: see the header allow"
)
REQUEST_TOO_SLOW = Refusal(408, TOO_SLOW, "REQUEST_TOO_SLOW", "the request did not arrive in time")
LENGTH_MISSING = Refusal(411, INVALID, "LENGTH_MISSING", "content-length is missing; it is 0 where there is no body")
BODY_TOO_LARGE = Refusal(413, INVALID, "BODY_TOO_LARGE", "the body is too large")
MEDIA_TYPE_UNSUPPORTED = Refusal(
    415, INVALID, "MEDIA_TYPE_UNSUPPORTED", "a body must be application/json and not compressed"
)
HTTP_TOO_OLD = Refusal(
    426, grpc.StatusCode.FAILED_PRECONDITION, "HTTP_TOO_OLD", "a stream of events needs HTTP/1.1 at least"
)
HEADERS_TOO_LARGE = Refusal(431, INVALID, "HEADERS_TOO_LARGE", "the path and the headers are too large together")
PREFLIGHT_REFUSED = Refusal(
    400, INVALID, "PREFLIGHT_REFUSED", "pages of this origin may not call, or not with this method or these headers"
)
BODIES_TOO_MANY = Refusal(
    503, grpc.StatusCode.UNAVAILABLE, "BODIES_TOO_MANY", "too many large bodies are arriving at this moment"
)


class Refused(Exception):  # noqa: N818 - what it says is no error of ours
    """A request is refused."""

    def __init__(self, refusal: Refusal, *headers: Header, **metadata: str) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.headers = headers
        self.metadata = metadata
