"""What replicas tell each other survives the way there and back."""

import contextlib
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.redis.message_codec import LIMIT, VERSION, UnknownMessageError, decode, encode
from application.ports.event_bus import BusMessage, CancelWanted, Interest, News, OrphansLeft
from domain.run import AttemptReset, Cancelled, EventBody, Failed, RunEvent, Started, TextDelta

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)

PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

uuids = st.uuids()
seqs = st.integers(min_value=1, max_value=2**63 - 1)
bodies = (
    st.builds(TextDelta, st.text())
    | st.builds(AttemptReset, st.text())
    | st.builds(Failed, st.text(), st.text())
    | st.builds(Cancelled)
)
events = st.builds(RunEvent, uuids, uuids, seqs, seqs, st.datetimes(timezones=st.just(UTC)), bodies)
messages = (
    st.builds(Interest, uuids, st.lists(uuids).map(tuple))
    | st.builds(News, st.lists(events).map(tuple), st.lists(st.tuples(uuids, seqs)).map(tuple))
    | st.builds(CancelWanted, uuids)
    | st.builds(OrphansLeft)
)


def event(body: EventBody, seq: int = 2) -> RunEvent:
    return RunEvent(uuid4(), uuid4(), seq, 1, NOW, body)


@PATIENTLY
@given(messages)
def test_what_was_encoded_is_decoded(message: BusMessage) -> None:
    assert decode(encode(message)) == message


@PATIENTLY
@given(st.binary() | st.binary().map(VERSION.__add__))
def test_other_bytes_are_refused_in_one_way_or_are_a_message(payload: bytes) -> None:
    with contextlib.suppress(UnknownMessageError):
        decode(payload)


@PATIENTLY
@given(messages, st.data())
def test_half_a_message_is_refused(message: BusMessage, data: st.DataObject) -> None:
    payload = encode(message)
    with pytest.raises(UnknownMessageError):
        decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


@pytest.mark.parametrize(
    "payload",
    [
        b"\x02" + encode(OrphansLeft())[1:],
        VERSION + msgspec.msgpack.encode([99]),
        VERSION + msgspec.msgpack.encode([3, "no id"]),
        VERSION + msgspec.msgpack.encode([2, [["a"]], []]),
        VERSION + b"\x91" * 100_000,
        VERSION + b"\x92\x04" + b"\x91" * 100_000,
    ],
    ids=["another version", "unknown kind", "wrong type", "too short an event", "too deep", "too deep beyond the end"],
)
def test_what_another_version_might_send_is_refused(payload: bytes) -> None:
    with pytest.raises(UnknownMessageError):
        decode(payload)


def test_a_field_that_a_newer_replica_adds_is_ignored() -> None:
    assert decode(VERSION + msgspec.msgpack.encode([4, "new"])) == OrphansLeft()


def test_a_piece_of_text_costs_50_bytes_beside_its_text() -> None:
    news = News(tuple(event(TextDelta("x" * 20)) for _ in range(32)))
    assert len(encode(news)) <= 32 * (50 + 20) + 10


def test_news_too_long_for_one_message_only_tell_how_far_the_logs_go() -> None:
    first, second, other = uuid4(), event(TextDelta("x" * LIMIT), seq=9), event(Cancelled(), seq=3)
    told = decode(encode(News((second, other), newest=((first, 5),))))
    assert told == News((), newest=((first, 5), (second.run_id, 9), (other.run_id, 3)))


def test_an_event_that_does_not_travel_is_an_error_of_the_sender() -> None:
    with pytest.raises(TypeError, match="Started"):
        encode(News((event(Started(uuid4(), uuid4(), uuid4(), "model")),)))
