"""What a replica counts and times, for whoever watches over it."""

from typing import Protocol

from domain.run import RunState


class MethodMeter(Protocol):
    """The calls of one method."""

    def started(self) -> None:
        """Counts a call that has come in."""
        ...

    def sent(self) -> None:
        """Counts a message that goes out."""
        ...

    def handled(self, code: str, seconds: float) -> None:
        """Counts a call that has ended, by its status code, and its time from first to last."""
        ...


class Telemetry(Protocol):
    """Cheap enough for every event: a microsecond at most. Never raises."""

    def method(self, name: str, *, streams: bool) -> MethodMeter:
        """Returns the meter of a method, `/package.Service/Method`. An empty name stands for all that do not exist."""
        ...

    def run_started(self) -> None:
        """Counts a run that this replica begins to make."""
        ...

    def run_ended(self, state: RunState) -> None:
        """Counts a run whose end this replica has committed."""
        ...

    def first_token(self, seconds: float) -> None:
        """Takes the time from the question to a model until its first piece of text."""
        ...

    def token_gap(self, seconds: float) -> None:
        """Takes the time between two pieces of a model's text."""
        ...

    def log_written(self, events: int, seconds: float) -> None:
        """Takes the size of a round of the log writer, and for how long its oldest text has waited to be committed."""
        ...


class NoTelemetry(Telemetry, MethodMeter):
    """Counts nothing."""

    def method(self, name: str, *, streams: bool) -> MethodMeter:
        """Returns itself."""
        return self

    def started(self) -> None:
        """Does nothing."""

    def sent(self) -> None:
        """Does nothing."""

    def handled(self, code: str, seconds: float) -> None:
        """Does nothing."""

    def run_started(self) -> None:
        """Does nothing."""

    def run_ended(self, state: RunState) -> None:
        """Does nothing."""

    def first_token(self, seconds: float) -> None:
        """Does nothing."""

    def token_gap(self, seconds: float) -> None:
        """Does nothing."""

    def log_written(self, events: int, seconds: float) -> None:
        """Does nothing."""


UNWATCHED = NoTelemetry()
