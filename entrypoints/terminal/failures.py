"""What a person reads when a call fails: one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from entrypoints.errors import OperatorError
from entrypoints.settings import Settings
from entrypoints.terminal.printable import one_line

CALL_SECONDS = 10
"""How long a call that is no stream may take."""

M = TypeVar("M", bound=Message)
_BY_REASON = {
    "CREDENTIALS_INVALID": "the service does not accept this e-mail with this password",
    "REFRESH_TOKEN_INVALID": "the session has ended; start ./bin/dev chat again",
    "SESSION_ENDED": "the session has ended; start ./bin/dev chat again",
}


class TerminalError(OperatorError):
    """Why a terminal command can't go on."""


@contextmanager
def plain_errors(settings: Settings) -> Iterator[None]:
    """Makes a failed call a TerminalError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TerminalError(_explain(address(settings), error)) from None


def address(settings: Settings) -> str:
    """Returns where to reach a service of these settings: one that listens everywhere is reached on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(settings.grpc_host, settings.grpc_host)  # noqa: S104
    return f"[{host}]:{settings.grpc_port}" if ":" in host and host[0] != "[" else f"{host}:{settings.grpc_port}"


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Returns the service's reason for the failure, empty if the service itself did not speak."""
    return str(_detail(error, error_details_pb2.ErrorInfo()).reason)


def _explain(where: str, error: grpc.aio.AioRpcError) -> str:
    said, info = one_line(error.details() or ""), _detail(error, error_details_pb2.ErrorInfo())
    if info.reason in _BY_REASON:
        return _BY_REASON[info.reason]
    if incident := info.metadata.get("incident_id"):
        return f"the service made a mistake; its log tells more under {one_line(incident)}"
    if info.reason:
        return said + _when_to_retry(error)
    return _unspoken(where, error.code(), said)


def _unspoken(where: str, code: grpc.StatusCode, said: str) -> str:
    """Explains a failure for which the service gave no reason: most likely it is not there."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"nothing answers on {where}; start it with ./bin/dev api"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{where} did not answer within {CALL_SECONDS} s; look at the terminal or log of ./bin/dev api"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what listens on {where} is not this version of ChatBack; set CHATBACK_GRPC_PORT"
    return f"{where} refuses the call: {said or code.name}"


def _when_to_retry(error: grpc.aio.AioRpcError) -> str:
    delay = _detail(error, error_details_pb2.RetryInfo()).retry_delay
    seconds = delay.seconds + delay.nanos / 1e9
    return f"; try again in {max(seconds, 0.1):.1f} s" if seconds else ""


def _detail(error: grpc.aio.AioRpcError, empty: M) -> M:
    """Fills the message with the failure's detail of its type, if there is one."""
    for detail in _status(error).details:
        detail.Unpack(empty)
    return empty


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            with suppress(DecodeError):  # not this service's
                return status_pb2.Status.FromString(value)
    return status_pb2.Status()
