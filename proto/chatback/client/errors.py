"""What can go wrong: a call, or an answer."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from chatback.v1 import run_pb2

DOMAIN = "chatback"
REFUSED_TOKEN = frozenset({"TOKEN_INVALID", "SESSION_ENDED"})
_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
_LOST_IF_UNEXPLAINED = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

M = TypeVar("M", bound=Message)


@dataclass(eq=False)
class ChatBackError(Exception):
    """A call failed. Programs should go by `reason`; `message` is for people.

    - `reason` is the name of a chatback.v1.ErrorReason without its prefix, or empty where not the service spoke but
      the way to it.
    - `metadata` are the values that go with the reason, e.g. the run_id of RUN_IN_PROGRESS.
    - `field_violations` are the fields of the request that were wrong; each has a field and a description.
    - `retry_after` is how many seconds the service asks to wait before the call is repeated, None if it says nothing.
    - `request_id` is under what the service's log tells of the call; empty where the call did not reach it.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    field_violations: Sequence[error_details_pb2.BadRequest.FieldViolation] = ()
    retry_after: float | None = None
    request_id: str = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"

    @property
    def is_about_the_connection(self) -> bool:
        """Says whether the way to the service broke or the service sends its callers away, so that others may try."""
        return self.code in _LOST or (self.code in _LOST_IF_UNEXPLAINED and not self.reason)

    @property
    def is_about_the_token(self) -> bool:
        """Says whether the call was refused for its access token alone."""
        return self.reason in REFUSED_TOKEN


class AnswerError(Exception):
    """An answer did not come to its end: it failed, or somebody cancelled it. What was written is kept.

    - `event` is the run's last event, `failed` or `cancelled`.
    - `text` is the answer as far as it came.
    """

    def __init__(self, event: run_pb2.RunEvent, text: str) -> None:
        super().__init__(f"{event.failed.message} ({event.failed.reason})" if event.HasField("failed") else "cancelled")
        self.event = event
        self.text = text


def from_status(failed: grpc.aio.AioRpcError) -> ChatBackError:
    """Takes a failed call's status and its google.rpc details apart."""
    status = _status(failed)
    info = _detail(status, error_details_pb2.ErrorInfo())
    retry = _detail(status, error_details_pb2.RetryInfo())
    is_ours = info is not None and info.domain == DOMAIN
    return ChatBackError(
        failed.code(),
        failed.details() or failed.code().name,
        reason=info.reason if info and is_ours else "",
        metadata=dict(info.metadata) if info and is_ours else {},
        field_violations=tuple((_detail(status, error_details_pb2.BadRequest()) or _NOTHING_WRONG).field_violations),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        request_id=str(dict(failed.trailing_metadata() or ()).get("x-request-id", "")),
    )


_NOTHING_WRONG = error_details_pb2.BadRequest()


def _status(failed: grpc.aio.AioRpcError) -> status_pb2.Status:
    with suppress(DecodeError, ValueError):  # details that are no google.rpc.Status, or of another status, are not ours
        return rpc_status.from_call(cast("grpc.Call", failed)) or status_pb2.Status()
    return status_pb2.Status()


def _detail(status: status_pb2.Status, empty: M) -> M | None:
    """Returns the status's detail of the type, None if there is none."""
    return next((empty for detail in status.details if detail.Unpack(empty)), None)
