"""How the body of an event is stored: a number for its kind, and a text.

A piece of an answer is stored as it is. The numbers are in the database for ever.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from domain.conversation import Message
from domain.run import (
    AttemptReset,
    Cancelled,
    Completed,
    EventBody,
    Failed,
    FinishReason,
    RunEvent,
    Started,
    TextDelta,
)

STARTED, TEXT_DELTA, ATTEMPT_RESET, COMPLETED, FAILED, CANCELLED = range(1, 7)


def encode(body: EventBody) -> tuple[int, str]:
    """Returns the kind and the payload. That of `Completed` leaves out the message, which has a row of its own."""
    match body:
        case TextDelta():
            return TEXT_DELTA, body.text
        case Started():
            return STARTED, msgspec.json.encode(body).decode()
        case AttemptReset():
            return ATTEMPT_RESET, body.reason
        case Completed():
            return COMPLETED, body.finish_reason
        case Failed():
            return FAILED, msgspec.json.encode(body).decode()
        case Cancelled():
            return CANCELLED, ""


def decode(kind: int, payload: str, message: Message | None) -> EventBody:
    """Returns the body that `encode` was given; `message` is the stored one where the kind is `COMPLETED`."""
    if kind == COMPLETED and message is not None:
        return Completed(message, FinishReason(payload))
    return _DECODERS[kind](payload)


def columns(events: Sequence[RunEvent]) -> Sequence[Sequence[object]]:
    """Returns workspaces, runs, seqs, attempts, times, kinds and payloads.

    Attempts, times and kinds hold one value if that is the same for all.
    """
    bodies = [encode(event.body) for event in events]
    return (
        [event.workspace_id for event in events],
        [event.run_id for event in events],
        [event.seq for event in events],
        _once([event.attempt for event in events]),
        _once([event.create_time for event in events]),
        _once([kind for kind, _ in bodies]),
        [payload for _, payload in bodies],
    )


def _once(column: Sequence[object]) -> Sequence[object]:
    """Returns the first value alone if all are the same: the driver's encoding is half of what a batch costs."""
    return column[:1] if column and column.count(column[0]) == len(column) else column


_DECODERS: Mapping[int, Callable[[str], EventBody]] = {
    TEXT_DELTA: TextDelta,
    STARTED: msgspec.json.Decoder(Started).decode,
    ATTEMPT_RESET: AttemptReset,
    FAILED: msgspec.json.Decoder(Failed).decode,
    CANCELLED: lambda _payload: Cancelled(),
}
