"""Signing in to the running service from a terminal."""

import getpass
import json
import signal
import warnings

import grpc

from chatback.v1 import auth_service_pb2 as pb
from chatback.v1 import auth_service_pb2_grpc, user_pb2
from entrypoints.operator import FILE, load_operator
from entrypoints.settings import Settings
from entrypoints.terminal.failures import CALL_SECONDS, TerminalError, address, plain_errors, reason_of

__all__ = ["TerminalError", "connect", "log_in", "sign_in"]

# Only what may be repeated; how long a lost stream is waited for is for follow() to say.
_RETRIED = (
    {"service": "chatback.v1.ConversationService"},
    {"service": "chatback.v1.ModelService"},
    {"service": "chatback.v1.ChatService", "method": "CancelRun"},
    {"service": "chatback.v1.AuthService", "method": "RefreshTokens"},
)
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.3s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_OPTIONS = (
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": _RETRIED, "retryPolicy": _RETRY_POLICY}]})),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.enable_http_proxy", 0),
)


async def sign_in(settings: Settings, email: str | None, password: str | None) -> user_pb2.Tokens:
    """Returns tokens of the user that is named, of the data folder's operator otherwise. Raises TerminalError."""
    async with connect(settings) as channel:
        return (await log_in(channel, settings, email, password)).tokens


def connect(settings: Settings) -> grpc.aio.Channel:
    """Returns a channel to the service: without TLS, past any proxy, and quick to notice that the other end is gone."""
    return grpc.aio.insecure_channel(address(settings), options=_OPTIONS)


async def log_in(
    channel: grpc.aio.Channel, settings: Settings, email: str | None, password: str | None
) -> pb.LoginResponse:
    """Begins a session of the user that is named, of the data folder's operator otherwise. Raises TerminalError."""
    request = _credentials(settings, email, password)
    with plain_errors(settings):
        try:
            return await auth_service_pb2_grpc.AuthServiceStub(channel).Login(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if reason_of(error) == "CREDENTIALS_INVALID" and email is None and password is None:
                raise TerminalError(_foreign_operator(settings)) from None
            raise


def _credentials(settings: Settings, email: str | None, password: str | None) -> pb.LoginRequest:
    if password is not None:
        return pb.LoginRequest(email=email or settings.operator_email, password=password)
    if email is not None:
        return pb.LoginRequest(email=email, password=_ask_password(email))
    operator = load_operator(settings.data_dir)
    if operator is None:
        place = settings.data_dir / FILE
        raise TerminalError(f"{place} is not there: ./bin/dev api makes it; or name a user with --email")
    return pb.LoginRequest(email=operator.email, password=operator.password)


def _foreign_operator(settings: Settings) -> str:
    place = settings.data_dir / FILE
    return (
        f"the service on {address(settings)} does not accept the operator of {place}: the folder is another service's "
        "(CHATBACK_DATA_DIR) or the password was changed; name a user with --email"
    )


def _ask_password(email: str) -> str:
    """Asks on the terminal, where Ctrl-C has to end the program although the event loop is not running meanwhile."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"Password of {email}: ")
    except (EOFError, getpass.GetPassWarning):
        raise TerminalError("there is no terminal to ask for the password; give it with --password") from None
    finally:
        signal.signal(signal.SIGINT, ours)
