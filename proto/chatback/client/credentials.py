"""What a program can show to be let in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from chatback.v1 import user_pb2


@dataclass(frozen=True, slots=True)
class Password:
    """A user's e-mail and password. The client begins a session with its first call and ends it when it closes."""

    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that was made for a program, `cb_...`; it is sent as it is."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenProvider:
    """A function that returns the access token to call with, for programs that get their tokens elsewhere.

    It is asked before every call, never twice at a time, so it should keep a token for as long as that is good. If the
    service refuses a token, the call is repeated once, and the function asked once more.
    """

    provide: Callable[[], Awaitable[str]] = field(repr=False)


Credentials: TypeAlias = Password | user_pb2.Tokens | ApiKey | TokenProvider
"""Tokens are those of a Login: the client renews them, and `ChatBack.tokens` are always the newest."""
