"""From whatever went wrong to the status that the caller is told."""

import grpc
import structlog
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2

from application.ports.clock import Clock
from domain.errors import ChatBackError, ReplicaDraining
from entrypoints.grpc import errors
from entrypoints.rest.answers import Answer, error_answer
from entrypoints.rest.refusals import Refused

log = structlog.get_logger()
_STOPPING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def answer_for(error: Exception, clock: Clock, request_id: str) -> Answer:
    """Returns the answer that tells of the error; one that nobody foresaw is told by an incident id alone."""
    if isinstance(error, Refused):
        return refusal_answer(error, request_id)
    return error_answer(status_for(error, clock, request_id))


def refusal_answer(refused: Refused, request_id: str) -> Answer:
    """Returns the answer that tells why a request was refused, and tells the log."""
    refusal, detail = refused.refusal, Any()
    log.info("rest.refused", request_id=request_id, status=refusal.http, reason=refusal.reason)
    detail.Pack(
        error_details_pb2.ErrorInfo(reason=refusal.reason, domain=errors.ERROR_DOMAIN, metadata=refused.metadata)
    )
    code = code_pb2.Code.Value(refusal.code.name)
    status = status_pb2.Status(code=code, message=refusal.message, details=[detail])
    return error_answer(status, refusal.http, refused.headers)


def status_for(error: Exception, clock: Clock, request_id: str) -> status_pb2.Status:
    """Returns the status of a failed call: the one that the pipeline made, if the call came that far."""
    if isinstance(error, ChatBackError):
        return errors.status_of(error)
    if isinstance(error, grpc.aio.AioRpcError):
        if details := dict(error.trailing_metadata() or ()).get("grpc-status-details-bin"):
            return status_pb2.Status.FromString(details)
        if error.code() in _STOPPING:
            return errors.status_of(ReplicaDraining())
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.deadline_exceeded()
    incident_id = str(clock.new_id())
    log.error("rest.broken", request_id=request_id, incident_id=incident_id, exc_info=error)
    return errors.internal_error(incident_id)
