"""Tokens that are valid because they are remembered."""

import hashlib
import secrets
from datetime import datetime
from uuid import UUID

from application.ports.clock import Clock
from application.ports.token_signer import TokenSigner
from domain.errors import InvalidField, TokenInvalid
from domain.identity import Caller, Session


class FakeTokenSigner(TokenSigner):
    """Knows what it gave out. `verifications` counts how often an access token was looked into."""

    def __init__(self, clock: Clock) -> None:
        self.verifications = 0
        self._clock = clock
        self._key = secrets.token_hex(8)
        self._access: dict[str, tuple[Caller, datetime]] = {}
        self._pages: dict[str, tuple[str, list[str]]] = {}

    def access_token(self, caller: Caller, now: datetime, expire_time: datetime) -> str:
        token = f"access-{secrets.token_hex(8)}"
        self._access[token] = caller, expire_time.replace(microsecond=0)
        return token

    def verify_access_token(self, token: str) -> tuple[Caller, datetime]:
        self.verifications += 1
        if token not in self._access or self._access[token][1] <= self._clock.now():
            raise TokenInvalid
        return self._access[token]

    def refresh_token(self, session: Session) -> str:
        return self._refresh_token(session, session.generation)

    def refresh_session(self, token: str) -> tuple[UUID, int] | None:
        session_id, _, rest = token.partition(".")
        generation, dot, _ = rest.partition(".")
        try:
            return (UUID(session_id), int(generation)) if dot else None
        except ValueError:
            return None

    def proves(self, token: str, session: Session) -> bool:
        stated = self.refresh_session(token)
        return stated is not None and token == self._refresh_token(session, stated[1])

    def page_token(self, scope: str, keyset: list[str]) -> str:
        token = f"page-{secrets.token_hex(8)}"
        self._pages[token] = scope, keyset
        return token

    def keyset(self, scope: str, token: str) -> list[str]:
        known_scope, keyset = self._pages.get(token, ("", []))
        if not keyset or known_scope != scope:
            raise InvalidField("page_token", "is not a page token of this list")
        return keyset

    def _refresh_token(self, session: Session, generation: int) -> str:
        proof = f"{self._key} {session.session_id} {generation} {session.salt.hex()}"
        return f"{session.session_id}.{generation}.{hashlib.sha256(proof.encode()).hexdigest()}"
