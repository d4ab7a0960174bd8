"""One table from errors to gRPC statuses, with the details of AIP-193 (google.rpc.Status)."""

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from domain.errors import (
    AlreadyExists,
    ChatBackError,
    Conflict,
    InvalidField,
    InvalidInput,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
)

ERROR_DOMAIN = "chatback"
CODES: dict[type[ChatBackError], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: ChatBackError) -> grpc.StatusCode:
    """Returns the status code of the error's kind."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def status_of(error: ChatBackError) -> status_pb2.Status:
    """Returns the rich status: ErrorInfo always, BadRequest for a wrong field, RetryInfo where waiting helps."""
    return _status(
        code_of(error),
        error.message,
        [
            error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata),
            *_further_details(error),
        ],
    )


def deadline_exceeded() -> status_pb2.Status:
    """Returns the status of a call that took longer than its deadline, or than this service allows."""
    info = error_details_pb2.ErrorInfo(reason="DEADLINE_EXCEEDED", domain=ERROR_DOMAIN)
    return _status(grpc.StatusCode.DEADLINE_EXCEEDED, "the call took too long", [info])


def internal_error(incident_id: str) -> status_pb2.Status:
    """Returns all that a caller learns of a defect: the id under which the log tells more."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"incident_id": incident_id})
    return _status(grpc.StatusCode.INTERNAL, "internal error", [info])


def _further_details(error: ChatBackError) -> Sequence[Message]:
    if isinstance(error, InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.rule)
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, InvalidInput) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, RateLimited):
        return [error_details_pb2.RetryInfo(retry_delay=_seconds(error.retry_after))]
    return []


def _seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _status(code: grpc.StatusCode, message: str, details: Sequence[Message]) -> status_pb2.Status:
    packed = [Any() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=packed)
