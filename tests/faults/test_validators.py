"""The validators prove themselves: a planted offence of each kind is caught, and a good history is let pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import grpc

from chatback.v1.run_pb2 import RunEvent
from tests.faults.history import Break, History, Sight, kind_of
from tests.faults.validators import Case, Logged, Stored, offences

RUN = "run-1"


def event(seq: int, attempt: int = 1, **body: Any) -> RunEvent:
    return RunEvent(run_id=RUN, seq=seq, attempt=attempt, **body)


def said(seq: int, attempt: int, text: str) -> RunEvent:
    return event(seq, attempt, text_delta={"text": text})


def good_events() -> list[RunEvent]:
    """An answer whose first replica died in the middle."""
    return [
        event(1, started={"message_id": "message-1"}),
        said(2, 1, "q.1.0 q.1.1 "),
        said(3, 1, "q.1.2 "),
        event(4, 2, attempt_reset={"reason": "REPLICA_LOST"}),
        said(5, 2, "q.2.0 "),
        said(6, 2, "q.2.1 q.2.2 "),
        event(7, 2, completed={"message": {"content": "q.2.0 q.2.1 q.2.2 "}}),
    ]


def logged(events: Sequence[RunEvent]) -> list[Logged]:
    return [Logged(each.seq, each.attempt, kind_of(each), each.text_delta.text) for each in events]


def good_stored() -> Stored:
    text = "q.2.0 q.2.1 q.2.2 "
    return Stored("COMPLETED", 7, 2, "COMPLETE", text, text, logged(good_events()))


def sights(events: Sequence[RunEvent], watcher: str) -> list[Sight]:
    return [Sight(watcher, "a", float(at), each) for at, each in enumerate(events)]


def judged(
    change: Callable[[list[RunEvent]], object] = list, breaks: Sequence[Break] = (), **stored: object
) -> set[str]:
    """Returns the names of the rules that are broken when one of two watchers saw changed events."""
    events = good_events()
    change(events)
    history = History([*sights(good_events(), "other"), *sights(events, "one")], list(breaks))
    found = offences(Case(history, {RUN: replace(good_stored(), **stored)}))  # type: ignore[arg-type]
    return {offence.partition(":")[0] for offence in found}


def changed(index: int, new: RunEvent) -> Callable[[list[RunEvent]], object]:
    return lambda events: events.__setitem__(index, new)


def test_a_good_history_is_let_pass() -> None:
    assert judged() == set()


def test_a_watch_from_a_cursor_on_is_let_pass() -> None:
    history = History(sights(good_events()[4:], "late"), after={"late": 4})
    assert offences(Case(history, {RUN: good_stored()})) == []


def test_a_gap_is_caught() -> None:
    assert "gapless" in judged(lambda events: events.pop(4))


def test_a_gap_before_the_first_event_is_caught() -> None:
    assert "gapless" in judged(lambda events: events.pop(0))


def test_a_gap_behind_the_cursor_of_a_late_watcher_is_caught() -> None:
    history = History(sights(good_events()[5:], "late"), after={"late": 4})
    assert [each.partition(":")[0] for each in offences(Case(history, {RUN: good_stored()}))] == ["gapless"]


def test_a_duplicate_is_caught() -> None:
    assert "unique" in judged(lambda events: events.insert(3, events[2]))


def test_a_swapped_pair_is_caught() -> None:
    assert "ordered" in judged(lambda events: events.insert(1, events.pop(2)))


def test_a_replay_from_the_start_is_caught() -> None:
    assert {"ordered", "unique"} <= judged(lambda events: events.extend(good_events()))


def test_a_lost_end_is_caught() -> None:
    assert judged(lambda events: events.pop()) >= {"ended_once"}


def test_a_second_end_is_caught() -> None:
    assert "ended_once" in judged(lambda events: events.append(event(8, 2, cancelled={})))


def test_an_event_behind_the_end_is_caught() -> None:
    assert "ended_once" in judged(lambda events: events.append(said(8, 2, "q.2.3 ")))


def test_a_changed_payload_is_caught() -> None:
    assert "same_for_all" in judged(changed(4, said(5, 2, "q.2.9 ")))


def test_a_changed_time_is_caught() -> None:
    later = said(5, 2, "q.2.0 ")
    later.create_time.seconds = 5
    assert judged(changed(4, later)) == {"same_for_all"}


def test_an_event_that_the_log_does_not_know_is_caught() -> None:
    assert "seen_is_logged" in judged(log=logged(good_events()[:-1]))


def test_an_event_whose_text_was_overwritten_in_the_log_is_caught() -> None:
    rows = logged(good_events())
    rows[1] = replace(rows[1], text="q.2.0 ")
    assert judged(log=rows) == {"seen_is_logged"}


def test_a_gap_in_the_log_is_caught() -> None:
    assert "seen_is_logged" in judged(log=[row for row in logged(good_events()) if row.seq != 2])


def test_a_second_end_in_the_log_is_caught() -> None:
    rows = [*logged(good_events()), Logged(8, 2, "failed")]
    assert "seen_is_logged" in judged(log=rows, last_seq=8)


def test_text_of_two_attempts_in_one_answer_is_caught() -> None:
    assert "unmixed" in judged(changed(5, said(6, 2, "q.1.1 q.1.2 ")))


def test_text_that_begins_in_the_middle_is_caught() -> None:
    assert "unmixed" in judged(changed(4, said(5, 2, "q.2.1 ")))


def test_a_torn_word_is_caught() -> None:
    assert "unmixed" in judged(changed(4, said(5, 2, "q.2.")))


def test_text_without_its_reset_is_caught() -> None:
    assert "attempts_in_turn" in judged(changed(3, said(4, 2, "q.2.0 ")))


def test_an_attempt_that_goes_back_is_caught() -> None:
    assert "attempts_in_turn" in judged(changed(4, said(5, 1, "q.2.0 ")))


def test_a_log_that_does_not_begin_with_started_is_caught() -> None:
    assert "attempts_in_turn" in judged(changed(0, said(1, 1, "")))


def test_text_that_is_not_the_stored_message_is_caught() -> None:
    assert judged(content="q.2.0 q.2.1 ") == {"text_is_the_message"}


def test_text_that_is_not_the_listed_message_is_caught() -> None:
    assert judged(listed_content="q.2.0 q.2.1 ") == {"text_is_the_message"}


def test_text_that_is_not_the_message_of_the_last_event_is_caught() -> None:
    assert "text_is_the_message" in judged(changed(6, event(7, 2, completed={"message": {"content": "q.2.0 "}})))


def test_a_run_left_running_is_caught() -> None:
    assert "at_rest" in judged(state="RUNNING", status="STREAMING")


def test_a_message_left_streaming_is_caught() -> None:
    assert judged(status="STREAMING") == {"at_rest"}


def test_a_run_whose_state_is_not_its_last_event_is_caught() -> None:
    assert judged(state="FAILED", status="INCOMPLETE") == {"at_rest"}


def test_a_run_row_behind_its_log_is_caught() -> None:
    assert judged(attempt=1) == {"at_rest"}


def test_a_stream_that_breaks_with_another_status_than_unavailable_is_caught() -> None:
    broken = Break("one", "a", RUN, 0, grpc.StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD", 3)
    assert judged(breaks=[broken]) == {"breaks_can_be_resumed"}


def test_a_stream_that_ends_well_before_the_run_does_is_caught() -> None:
    assert judged(breaks=[Break("one", "a", RUN, 0, grpc.StatusCode.OK, "", 3)]) == {"breaks_can_be_resumed"}


def test_a_wrong_cursor_from_the_service_is_caught() -> None:
    broken = Break("one", "a", RUN, 0, grpc.StatusCode.UNAVAILABLE, "REPLICA_FENCED", 3, said=4)
    assert judged(breaks=[broken]) == {"breaks_can_be_resumed"}
    assert judged(breaks=[replace(broken, said=3)]) == set()
