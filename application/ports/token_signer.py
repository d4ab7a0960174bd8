"""Tokens that only this deployment can make."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.identity import Caller, Session


class TokenSigner(Protocol):
    """Signs access tokens, derives refresh tokens, seals page tokens."""

    def access_token(self, caller: Caller, now: datetime, expire_time: datetime) -> str:
        """Returns a signed JWT (RFC 9068, typ at+jwt) for the caller."""
        ...

    def verify_access_token(self, token: str) -> tuple[Caller, datetime]:
        """Returns the caller and the token's expiry. Raises TokenInvalid for what is not ours or has expired."""
        ...

    def refresh_token(self, session: Session) -> str:
        """Returns the token of the session's present generation: `<session>.<generation>.<MAC>`, equal each time."""
        ...

    def refresh_session(self, token: str) -> tuple[UUID, int] | None:
        """Returns session id and generation as the token states them, unproven; None where it has another shape."""
        ...

    def proves(self, token: str, session: Session) -> bool:
        """Says whether the MAC of this refresh token is ours, for the generation that the token states."""
        ...

    def page_token(self, scope: str, keyset: list[str]) -> str:
        """Returns an opaque token for the next page of the list that `scope` names (a caller and a query)."""
        ...

    def keyset(self, scope: str, token: str) -> list[str]:
        """Returns the keyset of a page token. Raises InvalidField for one that is forged or of another list."""
        ...
