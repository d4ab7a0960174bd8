"""One event of a streamed answer, as Chat Completions endpoints send it.

Nearly all are decoded straight into typed structs, in a microsecond or two. Endpoints differ, so what the types refuse
is read again leniently: wrong types, broken UTF-8 and lone surrogates cost time, not text.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

_COUNT_LIMIT = 2**31 - 1
_Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_LIMIT)]


class Delta(msgspec.Struct, gc=False):
    """New text of one choice."""

    content: str | None = None


class Choice(msgspec.Struct, gc=False):
    """One answer of those asked for. An endpoint that does not stream sends a `message` in place of the `delta`."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class TokenCounts(msgspec.Struct, gc=False):
    """What an answer cost, in tokens."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class Chunk(msgspec.Struct, gc=False):
    """One event; all fields may be missing. `error` is whatever the endpoint put there."""

    choices: list[Choice] = []
    usage: TokenCounts | None = None
    error: Any = None


_strict = msgspec.json.Decoder(Chunk).decode


def chunk_from(payload: bytes) -> Chunk:
    """Returns the event in a JSON document. Raises ValueError where it is no JSON."""
    try:
        return _strict(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _lenient_chunk(document(payload))


def error_from(payload: bytes) -> Chunk:
    """Returns the data of an event named `error` as an error. Raises ValueError where it is no JSON."""
    said = document(payload)
    return Chunk(error=said.get("error") or said if isinstance(said, dict) else said)


def document(payload: bytes) -> Any:
    """Returns a JSON document, past broken UTF-8 and bare control characters. Raises ValueError where it is none."""
    try:
        return json.loads(payload.decode("utf-8", "replace"), strict=False)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _lenient_chunk(event: object) -> Chunk:
    if not isinstance(event, dict):
        return Chunk()
    return Chunk(
        choices=[_lenient_choice(choice) for choice in _objects(event.get("choices"))],
        usage=_lenient_counts(event.get("usage")),
        error=event.get("error"),
    )


def _lenient_choice(choice: dict[str, Any]) -> Choice:
    spoken = (said.get("content") for said in (choice.get("delta"), choice.get("message")) if isinstance(said, dict))
    reason, index = choice.get("finish_reason"), choice.get("index")
    return Choice(
        delta=Delta("".join(text for content in spoken for text in _texts(content))),
        finish_reason=reason if isinstance(reason, str) else None,
        index=index if isinstance(index, int) else 0,
    )


def _texts(content: object) -> Iterator[str]:
    """Yields the text of a content that is a string or, as some endpoints send it, a list of parts."""
    if isinstance(content, str):
        yield content
    for part in _objects(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def _lenient_counts(usage: object) -> TokenCounts | None:
    if not isinstance(usage, dict):
        return None
    return TokenCounts(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _count(value: object) -> int:
    return min(max(value, 0), _COUNT_LIMIT) if isinstance(value, int) else 0


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
