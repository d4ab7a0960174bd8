"""How the body of an event is stored: a number for its kind, and a text.

A piece of an answer is stored as it is. The numbers are in the database for ever.
"""

from collections.abc import Callable, Mapping

import msgspec

from domain.conversation import Message
from domain.run import AttemptReset, Cancelled, Completed, EventBody, Failed, FinishReason, Started, TextDelta

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


_DECODERS: Mapping[int, Callable[[str], EventBody]] = {
    TEXT_DELTA: TextDelta,
    STARTED: msgspec.json.Decoder(Started).decode,
    ATTEMPT_RESET: AttemptReset,
    FAILED: msgspec.json.Decoder(Failed).decode,
    CANCELLED: lambda _payload: Cancelled(),
}
