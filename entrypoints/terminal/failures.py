"""What a person reads when a call fails: one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from chatback.client import ChatBackError
from entrypoints.errors import OperatorError
from entrypoints.settings import Settings
from entrypoints.terminal.printable import one_line

CALL_SECONDS = 10
"""How long a call that is no stream may take."""

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
    except ChatBackError as error:
        raise TerminalError(_explain(address(settings), error)) from None


def address(settings: Settings) -> str:
    """Returns where to reach a service of these settings: one that listens everywhere is reached on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(settings.grpc_host, settings.grpc_host)  # noqa: S104
    return f"[{host}]:{settings.grpc_port}" if ":" in host and host[0] != "[" else f"{host}:{settings.grpc_port}"


def _explain(where: str, error: ChatBackError) -> str:
    said = one_line(error.message)
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    if incident := error.metadata.get("incident_id"):
        return f"the service made a mistake; its log tells more under {one_line(incident)}"
    if error.reason:
        return said + (f"; try again in {max(error.retry_after, 0.1):.1f} s" if error.retry_after else "")
    return _unspoken(where, error.code, said)


def _unspoken(where: str, code: grpc.StatusCode, said: str) -> str:
    """Explains a failure for which the service gave no reason: most likely it is not there."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"nothing answers on {where}; start it with ./bin/dev api"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{where} did not answer within {CALL_SECONDS} s; look at the terminal or log of ./bin/dev api"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what listens on {where} is not this version of ChatBack; set CHATBACK_GRPC_PORT"
    return f"{where} refuses the call: {said}"
