"""Tokens under the deployment's keys: Ed25519 JWTs, derived refresh tokens, sealed keysets."""

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt

from adapters.security.key_ring import KeyRing
from application.ports.token_signer import TokenSigner
from domain.errors import InvalidField, TokenInvalid
from domain.identity import Caller, Role, Session

ISSUER = "chatback"
AUDIENCE = "chatback"
LEEWAY_SECONDS = 5
"""How far ahead the clock of the replica that signed may be."""

PAGE_TOKEN_LIMIT = 2000
"""A longer one is cut, so its MAC does not fit: work on a forged token stays small."""

_ALGORITHM = "EdDSA"
_TYPE = "at+jwt"
_CLAIMS = ["exp", "iat", "nbf", "sub", "aud", "iss", "jti", "sid", "wid", "role"]
# Shape and length are settled before any decoder sees a token.
_JWT = re.compile(r"[\w-]{1,200}\.[\w-]{1,1600}\.[\w-]{86}", re.ASCII)
_REFRESH = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([1-9][0-9]{0,8})\.[\w-]{43}", re.ASCII)


class JwtTokenSigner(TokenSigner):
    """Signs with the keys of the ring; the private halves never leave it."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._kid = keys.kid
        self._verifying = {keys.kid: keys.signing.public_key()}

    def access_token(self, caller: Caller, now: datetime, expire_time: datetime) -> str:
        """Returns a JWT (RFC 9068) of about 500 characters; its times are whole seconds, rounded down."""
        issued = int(now.timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(caller.user_id),
            "sid": str(caller.session_id),
            "wid": str(caller.workspace_id),
            "role": caller.role.value,
            "jti": secrets.token_urlsafe(16),
            "iat": issued,
            "nbf": issued,
            "exp": int(expire_time.timestamp()),
        }
        return jwt.encode(claims, self._keys.signing, _ALGORITHM, headers={"typ": _TYPE, "kid": self._kid})

    def verify_access_token(self, token: str) -> tuple[Caller, datetime]:
        """Returns the caller and the expiry. Nothing in the token chooses how it is verified.

        Raises TokenInvalid, without a cause: what a library says about a token holds parts of it.
        """
        if not _JWT.fullmatch(token):
            raise TokenInvalid
        try:
            caller, expire_time = _stated(self._claims(token))
        except (jwt.PyJWTError, ValueError, OverflowError, OSError):  # the last two: an expiry past all calendars
            raise TokenInvalid from None
        if expire_time <= datetime.now(UTC):  # the leeway is for clocks ahead, not for longer lives
            raise TokenInvalid
        return caller, expire_time

    def refresh_token(self, session: Session) -> str:
        """Returns the token of the session's present generation; it is derived, so it can be given again."""
        return self._refresh_token(session, session.generation)

    def refresh_session(self, token: str) -> tuple[UUID, int] | None:
        """Returns session and generation as the token states them, unproven; None where it has another shape."""
        shape = _REFRESH.fullmatch(token)
        return (UUID(shape[1]), int(shape[2])) if shape else None

    def proves(self, token: str, session: Session) -> bool:
        """Says whether we made this token for this session, in the generation that it states."""
        stated = self.refresh_session(token)
        return stated is not None and hmac.compare_digest(token, self._refresh_token(session, stated[1]))

    def page_token(self, scope: str, keyset: list[str]) -> str:
        """Returns `<keyset as JSON>.<MAC>`, both in base64url; the MAC binds it to the scope."""
        body = _base64url(json.dumps(keyset, separators=(",", ":")).encode())
        return f"{body}.{self._page_mac(scope, body)}"

    def keyset(self, scope: str, token: str) -> list[str]:
        """Returns the keyset. Raises InvalidField for a token that we did not make for this list."""
        body, _, mac = token[:PAGE_TOKEN_LIMIT].partition(".")
        if not hmac.compare_digest(mac.encode(errors="replace"), self._page_mac(scope, body).encode()):
            raise InvalidField("page_token", "is not a page token of this list")
        return [str(key) for key in json.loads(urlsafe_b64decode(body + "=="))]

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        key = self._verifying.get(header.get("kid", ""))
        if key is None or header.get("typ") != _TYPE:  # PyJWT checks no typ
            raise TokenInvalid
        return jwt.decode(
            token,
            key,
            [_ALGORITHM],
            {"require": _CLAIMS, "strict_aud": True},
            audience=AUDIENCE,
            issuer=ISSUER,
            leeway=LEEWAY_SECONDS,
        )

    def _refresh_token(self, session: Session, generation: int) -> str:
        mac = hmac.digest(self._keys.refresh, f"{session.session_id}|{generation}|".encode() + session.salt, "sha256")
        return f"{session.session_id}.{generation}.{_base64url(mac)}"

    def _page_mac(self, scope: str, body: str) -> str:
        # The scope's digest has one length, so no scope can run over into the body.
        bound = hashlib.sha256(scope.encode(errors="surrogatepass")).digest() + body.encode(errors="surrogatepass")
        return _base64url(hmac.digest(self._keys.cursor, bound, "sha256"))


def _stated(claims: dict[str, Any]) -> tuple[Caller, datetime]:
    caller = Caller(
        workspace_id=UUID(str(claims["wid"])),
        user_id=UUID(claims["sub"]),
        session_id=UUID(str(claims["sid"])),
        role=Role(claims["role"]),
    )
    return caller, datetime.fromtimestamp(claims["exp"], UTC)


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
