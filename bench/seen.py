"""What a load saw; it passes from bench.load to bench.run as JSON."""

from collections.abc import Iterable
from dataclasses import dataclass


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


def percentile(values: Iterable[float], share: int) -> float:
    """Returns the value below which `share` percent of the values lie; of few values, the largest for 99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
