"""The shapes of what comes from outside: each check names its field and its limit."""

import re
from collections.abc import Collection
from typing import TypeVar
from uuid import UUID

from domain.errors import InvalidField

_SURROGATE_OR_NUL = re.compile("[\x00\ud800-\udfff]")
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

N = TypeVar("N", int, float)


def text(field: str, value: str, *, at_least: int = 0, at_most: int) -> str:
    """Returns the value if it has `at_least` to `at_most` characters and neither NUL nor lone surrogates."""
    if len(value) > at_most:
        raise InvalidField(field, f"must have at most {at_most} characters, has {len(value)}")
    if len(value) < at_least:
        raise InvalidField(field, "is required" if not value else f"must have at least {at_least} characters")
    if _SURROGATE_OR_NUL.search(value):
        raise InvalidField(field, "must not hold NUL or lone surrogates")
    return value


def visible(field: str, value: str, *, at_most: int) -> str:
    """Returns the value if it is at most `at_most` visible ASCII characters."""
    text(field, value, at_most=at_most)
    if not _VISIBLE.fullmatch(value):
        raise InvalidField(field, "must hold visible ASCII characters only")
    return value


def number(field: str, value: N, *, at_least: N, at_most: N) -> N:
    """Returns the value if it lies between both bounds, inclusive (NaN does not)."""
    if not at_least <= value <= at_most:
        raise InvalidField(field, f"must be from {at_least} to {at_most}")
    return value


def identifier(field: str, value: str) -> UUID:
    """Returns the id as a UUID; ids are opaque to callers, so the rule says no more than that it is none."""
    if not value:
        raise InvalidField(field, "is required")
    if not _UUID.fullmatch(value):
        raise InvalidField(field, "is not an id of this service")
    return UUID(value)


def optional_identifier(field: str, value: str) -> UUID | None:
    """Returns the id, or None where the field is empty."""
    return identifier(field, value) if value else None


def absent(field: str, value: object, *, beside: str) -> None:
    """Refuses a value that says something other than the field beside it."""
    if value:
        raise InvalidField(field, f"must be empty where {beside} is given")


def at_most(field: str, values: Collection[object], limit: int) -> None:
    """Refuses a list or map of more than `limit` entries."""
    if len(values) > limit:
        raise InvalidField(field, f"must have at most {limit} entries, has {len(values)}")
