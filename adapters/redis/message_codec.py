"""Messages between replicas as bytes: a version, then MessagePack arrays; about 70 bytes for an event."""

from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

from application.ports.event_bus import BusMessage, CancelWanted, Interest, News, OrphansLeft
from domain.run import AttemptReset, Cancelled, EventBody, Failed, RunEvent, TextDelta

VERSION = b"\x01"
LIMIT = 1 << 20
"""Bytes of a message; news longer than that only tell how far the logs go."""


class UnknownMessageError(Exception):
    """These bytes are no message of this version."""


class _Array(msgspec.Struct, array_like=True, gc=False):
    """Fields without their names; further ones, which a newer replica may add, are ignored."""


class _Reset(_Array, tag=1):
    reason: str


class _Failed(_Array, tag=2):
    reason: str
    message: str


class _Cancelled(_Array, tag=3):
    pass


_Body: TypeAlias = str | _Reset | _Failed | _Cancelled


class _Event(_Array):
    """Nearly all events are text, so that a body which is a string is the next piece of it."""

    workspace_id: UUID
    run_id: UUID
    seq: int
    attempt: int
    create_time: datetime
    body: _Body


class _Interest(_Array, tag=1):
    replica_id: UUID
    run_ids: tuple[UUID, ...]


class _News(_Array, tag=2):
    events: list[_Event]
    newest: tuple[tuple[UUID, int], ...]


class _CancelWanted(_Array, tag=3):
    run_id: UUID


class _OrphansLeft(_Array, tag=4):
    pass


_Wire: TypeAlias = _Interest | _News | _CancelWanted | _OrphansLeft

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: msgspec.msgpack.Decoder[_Wire] = msgspec.msgpack.Decoder(_Wire)


def encode(message: BusMessage) -> bytes:
    """Returns the bytes of a message. Raises TypeError for an event that does not travel."""
    payload = VERSION + _encoder.encode(_to_wire(message))
    if len(payload) > LIMIT and isinstance(message, News) and message.events:
        seqs = {**dict(message.newest), **{event.run_id: event.seq for event in message.events}}
        return encode(News((), tuple(seqs.items())))
    return payload


def decode(payload: bytes) -> BusMessage:
    """Returns the message that was encoded. Raises UnknownMessageError for all other bytes."""
    if payload[:1] != VERSION:
        raise UnknownMessageError
    try:
        return _from_wire(_decoder.decode(memoryview(payload)[1:]))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnknownMessageError from error


def _to_wire(message: BusMessage) -> _Wire:
    match message:
        case News(events, newest):
            return _News([_event_to_wire(event) for event in events], tuple(newest))
        case Interest(replica_id, run_ids):
            return _Interest(replica_id, tuple(run_ids))
        case CancelWanted(run_id):
            return _CancelWanted(run_id)
        case OrphansLeft():
            return _OrphansLeft()


def _from_wire(wire: _Wire) -> BusMessage:
    match wire:
        case _News():
            return News(tuple([_event_from_wire(event) for event in wire.events]), wire.newest)
        case _Interest():
            return Interest(wire.replica_id, wire.run_ids)
        case _CancelWanted():
            return CancelWanted(wire.run_id)
        case _OrphansLeft():
            return OrphansLeft()


def _event_to_wire(event: RunEvent) -> _Event:
    body = event.body
    return _Event(
        event.workspace_id,
        event.run_id,
        event.seq,
        event.attempt,
        event.create_time,
        body.text if isinstance(body, TextDelta) else _body_to_wire(body),
    )


def _event_from_wire(event: _Event) -> RunEvent:
    body = event.body
    return RunEvent(
        event.workspace_id,
        event.run_id,
        event.seq,
        event.attempt,
        event.create_time,
        TextDelta(body) if isinstance(body, str) else _body_from_wire(body),
    )


def _body_to_wire(body: EventBody) -> _Body:
    match body:
        case AttemptReset(reason):
            return _Reset(reason)
        case Failed(reason, message):
            return _Failed(reason, message)
        case Cancelled():
            return _Cancelled()
    raise TypeError(f"{type(body).__name__} does not travel between replicas")


def _body_from_wire(body: _Reset | _Failed | _Cancelled) -> EventBody:
    match body:
        case _Reset():
            return AttemptReset(body.reason)
        case _Failed():
            return Failed(body.reason, body.message)
        case _Cancelled():
            return Cancelled()
