"""A session: tokens that are renewed in time, and once."""

import math
import time
from contextlib import suppress

import grpc

from chatback.client.credentials import Password
from chatback.client.errors import ChatBackError
from chatback.client.single_flight import SingleFlight
from chatback.v1 import auth_service_pb2, user_pb2
from chatback.v1.auth_service_pb2_grpc import AuthServiceStub

EARLY_SECONDS = 20
"""How long before its end an access token is renewed."""
RENEWAL_SECONDS = 8
"""How long a renewal may be repeated; the service takes a refresh token again for 10 s after its first use."""
GOODBYE_SECONDS = 2


class Session:
    """The tokens of one session, or of one after the other where there is a password to begin them with."""

    def __init__(
        self, auth: AuthServiceStub, *, password: Password | None = None, tokens: user_pb2.Tokens | None = None
    ) -> None:
        self._auth = auth
        self._password = password
        self._renewal = SingleFlight(self._renew)
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
        if self._password is not None and not self.tokens.refresh_token:
            return await self._log_in(self._password)
        try:
            await self._refresh()
        except ChatBackError as error:
            is_over = error.code is grpc.StatusCode.UNAUTHENTICATED
            if is_over and self._password is not None:
                await self._log_in(self._password)
            elif is_over or time.time() >= self._expires:
                raise

    async def _log_in(self, known: Password) -> None:
        request = auth_service_pb2.LoginRequest(email=known.email, password=known.password)
        self._take((await self._auth.Login(request)).tokens)

    async def _refresh(self) -> None:
        request = auth_service_pb2.RefreshTokensRequest(refresh_token=self.tokens.refresh_token)
        self._take((await self._auth.RefreshTokens(request, timeout=RENEWAL_SECONDS)).tokens)

    def _take(self, tokens: user_pb2.Tokens) -> None:
        self.tokens = tokens
        self._expires = float(tokens.access_expire_time.seconds)
        early = self._expires - EARLY_SECONDS
        # New tokens that seem old say that the clocks differ: such are good until the service refuses them.
        self._due = early if early > time.time() else math.inf
