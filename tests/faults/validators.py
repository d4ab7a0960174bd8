"""What must hold of everything that was seen, one rule each. A rule yields one sentence for each offence.

test_validators.py plants each offence and shows that it is caught.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import grpc

from tests.faults.history import History, Watch, is_last, kind_of

WORD = re.compile(r"(\w+)\.(\d+)\.(\d+) ")
"""What the scripted model says: the question's name, the number of the call, the number of the word."""
STATUS_OF_STATE = {
    "COMPLETED": {"COMPLETE", "INCOMPLETE"},
    "FAILED": {"INCOMPLETE", "FAILED"},
    "CANCELLED": {"CANCELLED"},
}
STATE_OF_LAST = {"completed": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}


@dataclass(frozen=True, slots=True)
class Logged:
    """One row of a run's log in the database; `text` is that of a piece, of others empty."""

    seq: int
    attempt: int
    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is left of a run: its row and its message's in the database, its log, and what the API says of both."""

    state: str
    last_seq: int
    attempt: int
    status: str
    content: str
    listed_content: str
    log: Sequence[Logged]


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be judged."""

    history: History
    stored: Mapping[str, Stored]


Rule: TypeAlias = Callable[[Case], Iterator[str]]


def offences(case: Case) -> list[str]:
    """Returns what any of the rules has to say."""
    return [f"{rule.__name__}: {offence}" for rule in RULES for offence in rule(case)]


def ordered(case: Case) -> Iterator[str]:
    """A watcher's seq never goes back."""
    for watch, before, after in _steps(case.history):
        if after < before:
            yield f"{watch} got {after} after {before}"


def unique(case: Case) -> Iterator[str]:
    """A watcher gets no event twice."""
    for watch in case.history.watches():
        seqs = [event.seq for event in watch.events]
        yield from (f"{watch} got {seq} {seqs.count(seq)} times" for seq in sorted(set(seqs)) if seqs.count(seq) > 1)


def gapless(case: Case) -> Iterator[str]:
    """A watcher gets every event after its cursor."""
    for watch, before, after in _steps(case.history):
        if after > before + 1:
            yield f"{watch} got {after} after {before}"


def ended_once(case: Case) -> Iterator[str]:
    """A watch ends with the run's last event, and there is one of that kind."""
    for watch in case.history.watches():
        last = [event.seq for event in watch.events if is_last(event)]
        if not last:
            yield f"{watch} got no last event"
        elif len(last) > 1:
            yield f"{watch} got last events {last}"
        elif not is_last(watch.events[-1]):
            yield f"{watch} got events after the last event {last[0]}"


def same_for_all(case: Case) -> Iterator[str]:
    """(run_id, seq) names the same bytes for every watcher."""
    first: dict[tuple[str, int], tuple[str, bytes]] = {}
    for sight in case.history.sights:
        watcher, payload = first.setdefault((sight.event.run_id, sight.event.seq), (sight.watcher, sight.payload))
        if payload != sight.payload:
            yield f"{watcher} and {sight.watcher} got different events {sight.event.seq} of run {sight.event.run_id}"


def attempts_in_turn(case: Case) -> Iterator[str]:
    """The first event is `started` in attempt 1; the attempt grows by one with each attempt_reset, and never else."""
    for watch in case.history.watches():
        for before, after in pairwise(watch.events):
            if after.attempt - before.attempt != (kind_of(after) == "attempt_reset"):
                yield f"{watch} went from attempt {before.attempt} to {after.attempt} at {after.seq}, {kind_of(after)}"
        for event in watch.events:
            if (event.seq == 1) != (kind_of(event) == "started") or (event.seq == 1 and event.attempt != 1):
                yield f"{watch} got {kind_of(event)} of attempt {event.attempt} as event {event.seq}"


def unmixed(case: Case) -> Iterator[str]:
    """The text of an attempt is of one call of the model, from its first word on."""
    for watch in case.history.watches():
        for attempt, text in _texts(watch).items():
            if text and watch.after_seq == 0 and not _is_of_one_call(text):
                yield f"{watch}: attempt {attempt} says {text!r}"


def text_is_the_message(case: Case) -> Iterator[str]:
    """The pieces after the last attempt_reset, joined, are the message: in `completed`, stored, listed, in the log."""
    for watch in case.history.watches():
        stored = case.stored.get(watch.run_id)
        if stored is None or watch.after_seq:
            continue
        text, last = list(_texts(watch).values())[-1], watch.events[-1]
        said = {"stored": stored.content, "listed": stored.listed_content, "logged": _logged_text(stored)}
        if kind_of(last) == "completed":
            said["completed"] = last.completed.message.content
        yield from (f"{watch}: {where} {said[where]!r}, seen {text!r}" for where in said if said[where] != text)


def seen_is_logged(case: Case) -> Iterator[str]:
    """What was seen is in the log, and the log has no gap, no two ends, and nothing behind the end."""
    for run_id, stored in case.stored.items():
        if [row.seq for row in stored.log] != list(range(1, stored.last_seq + 1)):
            yield f"the log of run {run_id} holds {[row.seq for row in stored.log]}, its newest is {stored.last_seq}"
        if [row.seq for row in stored.log if row.kind in STATE_OF_LAST] != [stored.last_seq]:
            yield f"the log of run {run_id} does not end once: {[row.kind for row in stored.log]}"
    rows = {(run_id, row.seq): row for run_id, stored in case.stored.items() for row in stored.log}
    for sight in case.history.sights:
        event = sight.event
        row = rows.get((event.run_id, event.seq))
        if row != Logged(event.seq, event.attempt, kind_of(event), event.text_delta.text):
            yield f"{sight.watcher} got {kind_of(event)} {event.seq} of run {event.run_id}, but logged is {row}"


def at_rest(case: Case) -> Iterator[str]:
    """No run is left running; run, message and last event agree on how it ended."""
    for run_id, stored in case.stored.items():
        if stored.status not in STATUS_OF_STATE.get(stored.state, set()):
            yield f"run {run_id} is {stored.state}, its message {stored.status}"
        if stored.log and STATE_OF_LAST.get(stored.log[-1].kind) != stored.state:
            yield f"run {run_id} is {stored.state}, its last event {stored.log[-1].kind}"
        if stored.log and stored.log[-1].attempt != stored.attempt:
            yield f"run {run_id} is at attempt {stored.attempt}, its last event at {stored.log[-1].attempt}"


def breaks_can_be_resumed(case: Case) -> Iterator[str]:
    """A stream that breaks is UNAVAILABLE and, where the service says where to go on, it says so rightly."""
    for broken in case.history.breaks:
        if broken.code is not grpc.StatusCode.UNAVAILABLE:
            yield f"{broken.watcher} at {broken.replica}: {broken.code.name} {broken.reason} after {broken.cursor}"
        elif broken.said is not None and broken.said != broken.cursor:
            yield f"{broken.watcher} had {broken.cursor}, {broken.replica} said {broken.said} ({broken.reason})"


RULES: Sequence[Rule] = (
    ordered,
    unique,
    gapless,
    ended_once,
    same_for_all,
    attempts_in_turn,
    unmixed,
    text_is_the_message,
    seen_is_logged,
    at_rest,
    breaks_can_be_resumed,
)


def _steps(history: History) -> Iterator[tuple[Watch, int, int]]:
    """Yields each seq with the one before it, the first with where the watcher began."""
    for watch in history.watches():
        for before, after in pairwise([watch.after_seq, *(event.seq for event in watch.events)]):
            yield watch, before, after


def _texts(watch: Watch) -> Mapping[int, str]:
    """Joins the pieces between two resets, by attempt; the last entry is the text that counts."""
    texts = {1: ""}
    number = 1
    for event in watch.events:
        if kind_of(event) == "attempt_reset":
            number = event.attempt
            texts[number] = ""
        texts[number] += event.text_delta.text
    return texts


def _is_of_one_call(text: str) -> bool:
    words = [(match[1], int(match[2]), int(match[3])) for match in WORD.finditer(text)]
    said = "".join(f"{name}.{call}.{number} " for name, call, number in words)
    names_and_calls = {(name, call) for name, call, _ in words}
    return said == text and len(names_and_calls) == 1 and [number for *_, number in words] == list(range(len(words)))


def _logged_text(stored: Stored) -> str:
    reset = max((row.seq for row in stored.log if row.kind == "attempt_reset"), default=0)
    return "".join(row.text for row in stored.log if row.seq > reset)
