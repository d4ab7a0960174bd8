"""Path templates of google.api.http: `/v1/{name=shelves/*}/books/{book_id}:read`."""

import re
from urllib.parse import unquote

from domain.errors import InvalidField

_PIECE = re.compile(r"\{(?P<field>[A-Za-z0-9_.]+)(?:=(?P<inner>[^{}]+))?\}|(?P<rest>\*\*|\*|[^{}*]+)")
_SLASH = re.compile("%2f", re.IGNORECASE)


class PathTemplate:
    """Matches paths as they stand in the request line, still percent-encoded.

    `*` is one segment, `**` any number of them; neither holds a colon, which begins the verb: one that belongs to a
    value is sent as `%3A`.
    """

    __slots__ = ("_match", "_spans", "fields", "text")

    def __init__(self, text: str) -> None:
        pieces = list(_PIECE.finditer(text))
        if "".join(piece[0] for piece in pieces) != text:
            raise ValueError(f"{text!r} is no path template")
        variables = [piece for piece in pieces if piece["field"]]
        self.text = text
        self.fields = tuple(piece["field"] for piece in variables)
        self._spans = tuple(_spans_segments(piece["inner"]) for piece in variables)
        self._match = re.compile("".join(map(_pattern, pieces))).fullmatch

    def match(self, path: str) -> tuple[str, ...] | None:
        """Returns the values of `fields`, decoded, or None. Raises InvalidField for bytes that are no UTF-8.

        Where a value spans segments an encoded slash stays `%2F`: else it could not be told from the others.
        """
        found = self._match(path)
        if found is None:
            return None
        if "%" not in path:
            return found.groups()
        return tuple(map(_decoded, self.fields, self._spans, found.groups()))


def _pattern(piece: re.Match[str]) -> str:
    if piece["field"]:
        return f"({_segments(piece['inner'] or '*')})"
    return _segments(piece["rest"])


def _segments(text: str) -> str:
    wild = {"*": "[^/:]+", "**": "[^:]*"}
    return "".join(wild.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", text))


def _spans_segments(inner: str | None) -> bool:
    return inner is not None and ("/" in inner or "**" in inner)


def _decoded(field: str, spans: bool, value: str) -> str:
    try:
        if spans:
            return "%2F".join(unquote(part, errors="strict") for part in _SLASH.split(value))
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidField(field, "is not UTF-8") from None
