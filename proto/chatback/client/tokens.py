"""Access tokens: where they come from, and that they are renewed in time and once."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import grpc

from chatback.client.credentials import ApiKey, Credentials, Password, TokenProvider
from chatback.client.errors import ChatBackError
from chatback.v1 import auth_service_pb2, user_pb2
from chatback.v1.auth_service_pb2_grpc import AuthServiceStub

EARLY_SECONDS = 20
"""How long before its end an access token is renewed."""
RENEWAL_SECONDS = 8
"""How long a renewal may be repeated; the service takes a refresh token again for 10 s after its first use."""
GOODBYE_SECONDS = 2

T = TypeVar("T")


class TokenSource(Protocol):
    """Gives the tokens that calls bear."""

    async def token(self) -> str:
        """Returns the token for the next call, empty for none. Raises ChatBackError."""

    def refuse(self, token: str) -> bool:
        """Takes note that the service does not accept the token; says whether there may be another."""

    async def close(self) -> None:
        """Ends what the source began."""


def token_source(credentials: Credentials | None, auth: AuthServiceStub) -> TokenSource:
    """Returns where the tokens for these credentials come from; without any, calls bear none."""
    match credentials:
        case Password():
            return Session(auth, password=credentials)
        case user_pb2.Tokens():
            return Session(auth, tokens=credentials)
        case TokenProvider():
            return ProvidedToken(credentials.provide)
        case ApiKey():
            return FixedToken(credentials.key)
        case None:
            return FixedToken("")


class FixedToken:
    """One token for ever."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """Returns the token."""
        return self._token

    def refuse(self, token: str) -> bool:
        """Says that there is no other."""
        return False

    async def close(self) -> None:
        """Does nothing."""


class ProvidedToken:
    """Asks somebody else."""

    def __init__(self, provide: Callable[[], Awaitable[str]]) -> None:
        self._provided = _OneAtATime(provide)

    async def token(self) -> str:
        """Returns what the provider gives. Raises what the provider raises."""
        return await self._provided()

    def refuse(self, token: str) -> bool:
        """Says that the provider may know better by now."""
        return True

    async def close(self) -> None:
        """Stops asking."""
        self._provided.cancel()


class Session:
    """The tokens of one session, or of one after the other where there is a password to begin them with."""

    def __init__(
        self, auth: AuthServiceStub, *, password: Password | None = None, tokens: user_pb2.Tokens | None = None
    ) -> None:
        self._auth = auth
        self._password = password
        self._renewal = _OneAtATime(self._renew)
        self.tokens = tokens or user_pb2.Tokens()
        self._expires = float(self.tokens.access_expire_time.seconds)
        self._due = self._expires - EARLY_SECONDS

    async def token(self) -> str:
        """Returns an access token, a new one if the last is about to expire. Raises ChatBackError."""
        if time.time() >= self._due:
            await self._renewal()
        return self.tokens.access_token

    def refuse(self, token: str) -> bool:
        """Lets the next call have another token."""
        if self.tokens.access_token == token:
            self._due = self._expires = 0
        return True

    async def close(self) -> None:
        """Ends the session if it was begun here and the service can be reached just now."""
        is_ours, self._password = self._password is not None, None
        if is_ours and self.tokens.refresh_token:
            with suppress(ChatBackError):
                await self._auth.Logout(auth_service_pb2.LogoutRequest(), timeout=GOODBYE_SECONDS)
        self._renewal.cancel()

    async def _renew(self) -> None:
        try:
            await self._refresh()
        except ChatBackError as error:
            if error.code is grpc.StatusCode.UNAUTHENTICATED and self._password is not None:
                await self._log_in(self._password)
            elif not error.is_about_the_connection or time.time() >= self._expires:
                raise

    async def _refresh(self) -> None:
        if not self.tokens.refresh_token and self._password is not None:
            await self._log_in(self._password)
            return
        request = auth_service_pb2.RefreshTokensRequest(refresh_token=self.tokens.refresh_token)
        self._take((await self._auth.RefreshTokens(request, timeout=RENEWAL_SECONDS)).tokens)

    async def _log_in(self, known: Password) -> None:
        request = auth_service_pb2.LoginRequest(email=known.email, password=known.password)
        self._take((await self._auth.Login(request)).tokens)

    def _take(self, tokens: user_pb2.Tokens) -> None:
        self.tokens = tokens
        self._expires = float(tokens.access_expire_time.seconds)
        early = self._expires - EARLY_SECONDS
        # New tokens that seem old say that the clocks differ: such are good until the service refuses them.
        self._due = early if early > time.time() else math.inf


class _OneAtATime(Generic[T]):
    """Does something once for all who ask for it meanwhile; one who gives up does not stop it for the others."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._work())
            self._task.add_done_callback(_retrieve)
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Gives up what is being done."""
        if self._task is not None:
            self._task.cancel()


def _retrieve(done: asyncio.Future[T]) -> None:
    """Keeps asyncio from complaining about a failure that everybody has stopped waiting for."""
    if not done.cancelled():
        done.exception()
