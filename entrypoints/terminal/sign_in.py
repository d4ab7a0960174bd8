"""Signing in to the running service from a terminal."""

import getpass
import signal
import warnings

from chatback.client import ChatBack, ChatBackError
from chatback.v1 import auth_service_pb2 as pb
from chatback.v1 import user_pb2
from entrypoints.operator import FILE, load_operator
from entrypoints.settings import Settings
from entrypoints.terminal.failures import CALL_SECONDS, TerminalError, address, plain_errors

__all__ = ["TerminalError", "connect", "log_in", "sign_in"]

PATIENCE_SECONDS = 30
"""How long a lost connection is tried for before the run is left alone."""


async def sign_in(settings: Settings, email: str | None, password: str | None) -> user_pb2.Tokens:
    """Returns tokens of the user that is named, of the data folder's operator otherwise. Raises TerminalError."""
    return (await log_in(settings, email, password)).tokens


async def log_in(settings: Settings, email: str | None, password: str | None) -> pb.LoginResponse:
    """Begins a session of the user that is named, of the data folder's operator otherwise. Raises TerminalError."""
    request = _credentials(settings, email, password)
    with plain_errors(settings):
        try:
            async with connect(settings) as service:
                return await service.auth.Login(request)
        except ChatBackError as error:
            if error.reason == "CREDENTIALS_INVALID" and email is None and password is None:
                raise TerminalError(_foreign_operator(settings)) from None
            raise


def connect(settings: Settings, tokens: user_pb2.Tokens | None = None) -> ChatBack:
    """Returns a client of the service: without TLS and past any proxy, for it is on this machine or near."""
    return ChatBack(
        address(settings),
        credentials=tokens,
        call_seconds=CALL_SECONDS,
        patience_seconds=PATIENCE_SECONDS,
        options=(("grpc.enable_http_proxy", 0),),
    )


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
