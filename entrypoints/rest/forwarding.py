"""What of an HTTP request goes on to gRPC as metadata."""

import re

from starlette.types import Scope

from domain.errors import InvalidField
from entrypoints.rest.body import Headers
from entrypoints.rest.refusals import HEADERS_TOO_LARGE, Refused

PASSED_ON = tuple((name, name.encode()) for name in ("authorization", "traceparent", "x-chatback-user"))
LIMIT = 8192
"""The most bytes that all of them may have; gRPC refuses more metadata than it was told to take."""

_SENDABLE = re.compile(rb"[\x20-\x7e]*")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}")


def metadata_for(scope: Scope, headers: Headers, request_id: str) -> list[tuple[str, str]]:
    """Returns the metadata of the call. Raises InvalidField for a value that gRPC cannot carry, and Refused."""
    metadata = [
        ("x-request-id", request_id),
        ("x-chatback-peer", _peer(scope)),
        *((name, _text(name, value)) for name, key in PASSED_ON if (value := headers.get(key))),
    ]
    if sum(len(value) for _, value in metadata) > LIMIT:
        raise Refused(HEADERS_TOO_LARGE)
    return metadata


def _text(name: str, value: bytes) -> str:
    if not _SENDABLE.fullmatch(value):
        raise InvalidField(name, "holds other characters than visible ASCII")
    return value.decode()


def _peer(scope: Scope) -> str:
    """Returns the caller's address; one that a trusted proxy tells is that proxy's word, so its shape is checked."""
    host = (scope.get("client") or ("",))[0]
    return host if _ADDRESS.fullmatch(host) else "unknown"
