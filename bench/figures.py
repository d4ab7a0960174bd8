"""What is measured, and where the values of all rounds are gathered."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

US = "ChatBack, gRPC"
REST = "ChatBack, REST"
OTHER = "ChatBack, other replica"
BARE = "bare grpc.aio"


class Figure(StrEnum):
    """A row of the table, named as people read it."""

    TOKENS_1 = "tokens/s, 1 stream"
    TOKENS_32 = "tokens/s, 32 streams"
    FIRST_1_P50 = "first token p50, 1 stream, ms"
    FIRST_1_P99 = "first token p99, 1 stream, ms"
    FIRST_32_P50 = "first token p50, 32 streams, ms"
    FIRST_32_P99 = "first token p99, 32 streams, ms"
    LOAD_CORE_32 = "load's core busy, 32 streams, %"
    RSS_LOADED = "process after that, MB"
    PACED_TOKENS = "tokens/s at real pace, 200 streams"
    PACED_CPU = "CPU per token at real pace, µs"
    PACED_FIRST_P50 = "first token p50 at real pace, ms"
    PACED_FIRST_P99 = "first token p99 at real pace, ms"
    PACED_LOAD_CORE = "load's core busy at real pace, %"
    EVENT_TOKENS = "tokens per event at real pace"
    EVENT_STORED = "stored per event, bytes"
    EVENT_WAL = "WAL per event, bytes"
    CALLS = "GetConversation calls/s, 32 in flight"
    CALL_CPU = "CPU per GetConversation, µs"
    LOAD_CORE_CALLS = "load's core busy, GetConversation, %"
    RSS_IDLE = "process idle, MB"
    RSS_STREAM = "per open stream of 1,000, kB"
    AGE_P50 = "token written to received p50, 200 streams, ms"
    AGE_P99 = "token written to received p99, 200 streams, ms"
    WIDE_AGE_P50 = "token written to received p50, 1,000 streams, ms"
    WIDE_AGE_P99 = "token written to received p99, 1,000 streams, ms"
    WIDE_CPU = "CPU per token, 1,000 streams, µs"
    WIDE_CONNECTIONS = "database connections, 1,000 streams"
    WATCH_AGE_P50 = "token written to received p50, watched on both replicas, ms"
    WATCH_AGE_P99 = "token written to received p99, watched on both replicas, ms"
    WATCH_CPU = "CPU per token of both replicas, by where it is watched, µs"
    COMMITS = "one-row commits/s of the bare driver"
    LOG_32 = "events/s into the log, 32 a statement"
    LOG_200 = "events/s into the log, 200 a statement"
    LOG_BY_FOUR = "events/s into the log, 32 a statement, 4 writers"
    LOG_STORED = "stored per event beyond its text, bytes"
    LOG_WAL = "WAL per event beyond its text, bytes"
    LOG_PACKED = "stored per answer, packed, in units of its text"
    PACK_MS = "packing an answer of 1,000 tokens, ms"
    BUS_MESSAGES = "news of 32 events through Valkey, messages/s"
    BUS_BYTES = "news of 32 events, bytes"
    BUS_CPU = "CPU of Valkey per message, µs"


@dataclass(frozen=True, slots=True)
class Board:
    """Every value that was measured, by whose it is and what it is; what counts is the median of the rounds."""

    values: dict[tuple[str, Figure], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, subject: str, values: Mapping[Figure, float]) -> None:
        """Adds the values of one round."""
        for figure, value in values.items():
            self.values[subject, figure].append(value)

    def get(self, subject: str, figure: Figure) -> float | None:
        """Returns the median of the rounds, None where nothing was measured."""
        found = self.values.get((subject, figure))
        return median(found) if found else None

    def has(self, figure: Figure) -> bool:
        """Says whether anybody's value is known."""
        return any(known is figure for _, known in self.values)

    def knows(self, subject: str) -> bool:
        """Says whether any value of this subject is known."""
        return any(known == subject for known, _ in self.values)
