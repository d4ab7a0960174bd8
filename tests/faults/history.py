"""What clients saw, event by event: the record that the validators judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from chatback.v1.run_pb2 import RunEvent

LAST_EVENTS = frozenset({"completed", "failed", "cancelled"})


def kind_of(event: RunEvent) -> str:
    """Returns which case of the oneof is set, empty for none."""
    return event.WhichOneof("event") or ""


def is_last(event: RunEvent) -> bool:
    """Says whether a run ends with this event."""
    return kind_of(event) in LAST_EVENTS


@dataclass(frozen=True, slots=True)
class Sight:
    """One event as one watcher got it from one replica, at this second of the monotonic clock."""

    watcher: str
    replica: str
    at: float
    event: RunEvent

    @property
    def payload(self) -> bytes:
        """The event's bytes, in which one that was sent as JSON equals one that was not."""
        return self.event.SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Break:
    """A stream that ended otherwise than with the run's last event or by its client's wish.

    `cursor` is the newest seq that the client had, `said` the one that the service named, if it named one.
    """

    watcher: str
    replica: str
    run_id: str
    at: float
    code: grpc.StatusCode
    reason: str
    cursor: int
    said: int | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """All that one watcher saw of one run, in the order in which it came, from after this seq."""

    watcher: str
    run_id: str
    after_seq: int
    sights: Sequence[Sight]

    def __str__(self) -> str:
        return f"{self.watcher} of run {self.run_id}"

    @property
    def events(self) -> Sequence[RunEvent]:
        """The events alone."""
        return [sight.event for sight in self.sights]


@dataclass(slots=True)
class History:
    """All sights and breaks of one scenario. A watcher is one client with one cursor, over as many streams as it took.

    - `after` holds where those watchers began that did not begin at the first event.
    - `silences` tells of streams that were given up since nothing came, one sentence each.
    """

    sights: list[Sight] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    after: dict[str, int] = field(default_factory=dict)
    silences: list[str] = field(default_factory=list)

    @property
    def run_ids(self) -> Sequence[str]:
        """The runs that anybody saw anything of, in order of first sight."""
        return list(dict.fromkeys(sight.event.run_id for sight in self.sights))

    def watches(self) -> Sequence[Watch]:
        """Sorts the sights by watcher and run."""
        found: Mapping[tuple[str, str], list[Sight]] = defaultdict(list)
        for sight in self.sights:
            found[sight.watcher, sight.event.run_id].append(sight)
        return [
            Watch(watcher, run_id, self.after.get(watcher, 0), sights) for (watcher, run_id), sights in found.items()
        ]

    def resumed(self, run_id: str, after: float, attempt: int = 1) -> float | None:
        """Returns how many seconds after a moment somebody first saw that a run goes on or has ended, None if nobody.

        It has to be in this attempt or a later one.
        """
        kinds = {"attempt_reset", *LAST_EVENTS}
        seen = [sight for sight in self.sights if sight.event.run_id == run_id and sight.event.attempt >= attempt]
        return min((it.at - after for it in seen if it.at > after and kind_of(it.event) in kinds), default=None)
