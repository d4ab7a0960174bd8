"""Who uses the service: users, what they prove themselves with, and the sessions that follow."""

import re
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from domain import bounds
from domain.errors import InvalidField

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)*")

PASSWORD_READ = 1024
"""A password of more characters than this is too long in every Unicode form."""

REFRESH_GRACE = timedelta(seconds=10)
"""How long the refresh token before the newest still answers, with the same successor: replies get lost."""


class Role(StrEnum):
    """What a user may do in the workspace; OPERATOR manages workspaces and reads nobody's content."""

    MEMBER = "MEMBER"
    ADMIN = "ADMIN"
    SERVICE = "SERVICE"
    OPERATOR = "OPERATOR"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call runs: the first argument of every use case."""

    workspace_id: UUID
    user_id: UUID
    session_id: UUID
    role: Role


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service, member of one workspace."""

    user_id: UUID
    workspace_id: UUID
    email: str
    display_name: str
    role: Role
    create_time: datetime


def email(value: str, name: str = "email") -> str:
    """Returns the address in lower case and NFC; it is unique in the deployment in this form."""
    bounds.text(name, value, at_least=1, at_most=254)
    if not _EMAIL.fullmatch(value):
        raise InvalidField(name, "must be an address like name@example.org")
    return unicodedata.normalize("NFC", value).lower()


def password(value: str, name: str = "password") -> str:
    """Returns the password in NFC: 12 to 128 characters of any kind, no rule of composition (NIST SP 800-63B)."""
    # Normalising takes time by the square of the length, and may shorten what it is given.
    normal = unicodedata.normalize("NFC", value[:PASSWORD_READ])
    if not 12 <= len(normal) <= 128 or len(value) > PASSWORD_READ:
        raise InvalidField(name, "must have 12 to 128 characters")
    return bounds.text(name, normal, at_most=128)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a new user tells of itself. Fields are normalised."""

    email: str
    password: str = field(repr=False)
    display_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "email", email(self.email))
        object.__setattr__(self, "password", password(self.password))
        bounds.text("display_name", self.display_name, at_most=100)


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in and the family of refresh tokens that descends from it.

    A refresh token names its session and generation and is derived from `salt` (RFC 9700, section 4.14.2 asks
    for rotation and for the family's end when a spent one comes back).
    """

    session_id: UUID
    workspace_id: UUID
    user_id: UUID
    salt: bytes = field(repr=False)
    generation: int
    rotate_time: datetime
    expire_time: datetime
    end_time: datetime | None = None

    def is_open(self, now: datetime) -> bool:
        """Says whether tokens of this session are honoured."""
        return self.end_time is None and now < self.expire_time

    def refreshed(self, generation: int, now: datetime, lifetime: timedelta) -> "Session | None":
        """Returns the session after a refresh with a token of `generation`, or None: then the family must die.

        The current generation rotates. The one before it gives the same successor for `REFRESH_GRACE`, since the
        reply that carried it may have been lost. Anything else is a spent token in somebody's hands.
        """
        if generation == self.generation:
            return replace(self, generation=generation + 1, rotate_time=now, expire_time=now + lifetime)
        if generation == self.generation - 1 and now - self.rotate_time <= REFRESH_GRACE:
            return self
        return None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a signed-in caller holds."""

    access_token: str = field(repr=False)
    access_expire_time: datetime
    refresh_token: str = field(repr=False)
    refresh_expire_time: datetime
