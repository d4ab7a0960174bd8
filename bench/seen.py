"""What a load saw; it passes from bench.load to bench.run as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class AnswersSeen:
    """Many streamed answers, all of them whole.

    Times are in seconds from asking to the first text. `cpu_seconds` is what the server spent meanwhile, `idle_bytes`
    its memory before, `open_bytes` its largest while all streams were open (0: they never were for half a second).
    `load_core_busy` is the share of time, 0 to 1, in which the load's core did anything.
    """

    tokens: int
    seconds: float
    first_token_p50: float
    first_token_p99: float
    cpu_seconds: float
    idle_bytes: int
    open_bytes: int
    load_core_busy: float


@dataclass(frozen=True, slots=True)
class CallsSeen:
    """Many unary calls, all of them with the same response; the rest as in AnswersSeen."""

    calls: int
    seconds: float
    cpu_seconds: float
    load_core_busy: float


@dataclass(frozen=True, slots=True)
class Ages:
    """How old, in seconds, tokens were when they came."""

    p50: float
    p99: float

    @classmethod
    def of(cls, ages: Sequence[float]) -> Self | None:
        """Sums up; of no tokens nothing is known."""
        return cls(percentile(ages, 50), percentile(ages, 99)) if ages else None


@dataclass(frozen=True, slots=True)
class DeliveriesSeen:
    """Tokens that models wrote and watchers took; `here` is the replica that made the answers, `there` another one.

    Ages are None where nobody watched, or where not all watchers ever had text at once. `cpu_seconds` is what all
    replicas spent together, the rest as in AnswersSeen.
    """

    tokens: int
    cpu_seconds: float
    load_core_busy: float
    here: Ages | None
    there: Ages | None


@dataclass(frozen=True, slots=True)
class LogSeen:
    """What the log of events takes and costs in the database.

    `commits` are statements a second that write one row and know nothing of events; `events_32` and `events_200` are
    events a second, so many in a statement; `events_by_four` is what four writers get in together, 32 in a statement.
    `stored` and `wal` are bytes of an event beyond its text, 32 in a statement. `packed` is what a packed answer takes,
    its text included, in units of its text, and `pack_seconds` what packing one takes.
    """

    commits: float
    events_32: float
    events_200: float
    events_by_four: float
    stored: float
    wal: float
    packed: float
    pack_seconds: float


@dataclass(frozen=True, slots=True)
class BusSeen:
    """What a Redis takes: messages a second, each with news of 32 events, their bytes, and its CPU seconds for one."""

    messages: float
    message_bytes: float
    cpu_seconds: float


def percentile(values: Iterable[float], share: int) -> float:
    """Returns the value below which `share` percent of the values lie; of few values, the largest for 99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
