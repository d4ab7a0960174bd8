"""How many events become few bytes: columns of small differences, each deflated with a code of its own.

The text of one attempt may be left out, being kept elsewhere; the lengths say how to cut it again. The format's number
comes first; what was written once is read for ever.
"""

import struct
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO
from itertools import accumulate
from typing import NamedTuple

from adapters.postgres.event_codec import TEXT_DELTA

_FORMAT = 1
_HEADER = struct.Struct("<BiI")  # format, attempt without text, events
_HEAD = struct.Struct("<qqB")  # of a column: first value, what is taken off all others, bytes left in each of them
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class StoredEvent(NamedTuple):
    """An event as its row has it."""

    seq: int
    attempt: int
    create_time: datetime
    kind: int
    payload: str

    def is_text_of(self, attempt: int) -> bool:
        """Says whether this is a piece of that attempt's answer."""
        return self.kind == TEXT_DELTA and self.attempt == attempt


def pack(events: Sequence[StoredEvent], attempt_without_text: int) -> bytes:
    """Returns the events as bytes, without the text of one attempt; with an attempt that is none, with all text."""
    times = [(event.create_time - _EPOCH) // _MICROSECOND for event in events]
    columns = [
        _column(_differences([event.seq for event in events])),
        _column(_differences([event.attempt for event in events])),
        _column(_differences([time // 1000 for time in times])),
        _column([time % 1000 for time in times]),
        _column([event.kind for event in events]),
        _column([len(event.payload) for event in events]),
    ]
    header = _HEADER.pack(_FORMAT, attempt_without_text, len(events))
    text = "".join(event.payload for event in events if not event.is_text_of(attempt_without_text))
    return _deflated([header + b"".join(head for head, _ in columns), *(body for _, body in columns), text.encode()])


def unpack(packed: bytes, text: str) -> Sequence[StoredEvent]:
    """Returns the events that `pack` was given; `text` is what it left out."""
    stream = BytesIO(zlib.decompress(packed))
    version, attempt_without_text, count = _HEADER.unpack(stream.read(_HEADER.size))
    if version != _FORMAT:
        raise ValueError(f"packed by a newer version: format {version}")
    heads = [_HEAD.unpack(stream.read(_HEAD.size)) for _ in range(6)]
    seqs, attempts, milliseconds, microseconds, kinds, lengths = (_values(stream, count - 1, *head) for head in heads)
    elsewhere, here = StringIO(text), StringIO(stream.read().decode())
    return [
        StoredEvent(
            seq,
            attempt,
            _EPOCH + timedelta(0, 0, more, time),
            kind,
            (elsewhere if kind == TEXT_DELTA and attempt == attempt_without_text else here).read(length),
        )
        for seq, attempt, time, more, kind, length in zip(
            accumulate(seqs),
            accumulate(attempts),
            accumulate(milliseconds),
            microseconds,
            kinds,
            lengths,
            strict=True,
        )
    ]


def _differences(values: Sequence[int]) -> Sequence[int]:
    return [value - before for value, before in zip(values, [0, *values], strict=False)]


def _column(values: Sequence[int]) -> tuple[bytes, bytes]:
    """Returns head and body; in the body all lowest bytes come first, then the next: like beside like deflates best."""
    first, *others = values
    least = min(others, default=0)
    above = [value - least for value in others]
    width = (max(above, default=0).bit_length() + 7) // 8
    raw = struct.pack(f"<{len(above)}Q", *above)
    return _HEAD.pack(first, least, width), b"".join(raw[place::8] for place in range(width))


def _values(stream: BytesIO, others: int, first: int, least: int, width: int) -> Sequence[int]:
    raw = bytearray(8 * others)
    for place in range(width):
        raw[place::8] = stream.read(others)
    return [first, *(least + value for value in struct.unpack(f"<{others}Q", raw))]


def _deflated(parts: Sequence[bytes]) -> bytes:
    """Ends a block after each part, since a block has the code that suits it: a sixth less than all with one code."""
    deflate = zlib.compressobj(9)
    blocks = [deflate.compress(part) + deflate.flush(zlib.Z_PARTIAL_FLUSH) for part in parts if part]
    return b"".join(blocks) + deflate.flush()
