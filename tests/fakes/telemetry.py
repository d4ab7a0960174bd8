"""Telemetry that a test reads back."""

from collections import Counter

from application.ports.telemetry import MethodMeter, Telemetry
from domain.run import RunState


class FakeTelemetry(Telemetry):
    """Keeps everything it was told."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.handled: list[tuple[str, str]] = []
        self.runs = 0
        self.endings: list[RunState] = []
        self.first_tokens: list[float] = []
        self.token_gaps: list[float] = []
        self.rounds: list[tuple[int, float]] = []

    def method(self, name: str, *, streams: bool) -> MethodMeter:
        return _FakeMeter(self, name)

    def run_started(self) -> None:
        self.runs += 1

    def run_ended(self, state: RunState) -> None:
        self.endings.append(state)

    def first_token(self, seconds: float) -> None:
        self.first_tokens.append(seconds)

    def token_gap(self, seconds: float) -> None:
        self.token_gaps.append(seconds)

    def log_written(self, events: int, seconds: float) -> None:
        self.rounds.append((events, seconds))


class _FakeMeter(MethodMeter):
    def __init__(self, telemetry: FakeTelemetry, name: str) -> None:
        self._telemetry = telemetry
        self._name = name

    def started(self) -> None:
        self._telemetry.calls[self._name] += 1

    def sent(self) -> None:
        self._telemetry.messages[self._name] += 1

    def handled(self, code: str, seconds: float) -> None:
        self._telemetry.handled.append((self._name, code))
