"""Where the access tokens of calls come from."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from chatback.client.credentials import ApiKey, Credentials, Password, TokenProvider
from chatback.client.session import Session
from chatback.client.single_flight import SingleFlight
from chatback.v1 import user_pb2
from chatback.v1.auth_service_pb2_grpc import AuthServiceStub


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
        self._provided = SingleFlight(provide)

    async def token(self) -> str:
        """Returns what the provider gives. Raises what the provider raises."""
        return await self._provided()

    def refuse(self, token: str) -> bool:
        """Says that the provider may know better by now."""
        return True

    async def close(self) -> None:
        """Stops asking."""
        self._provided.cancel()
