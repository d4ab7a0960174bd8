"""Streams that nobody reads: what they cost, when they end, and that they disturb nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from chatback.v1 import chat_service_pb2, conversation_pb2, run_pb2
from chatback.v1.chat_service_pb2_grpc import ChatServiceServicer, ChatServiceStub, add_ChatServiceServicer_to_server
from domain.errors import WatcherTooSlow
from domain.identity import Caller
from entrypoints.grpc.large_responses import UNDER_WAY_BYTES, WAITING_BYTES, LargeResponses
from tests.builders import a_caller
from tests.unit.edge import Gate, guarded, info
from tests.unit.waiting import until

NARROW = (("grpc.http2.lookahead_bytes", 64 << 10), ("grpc.http2.bdp_probe", 0))
"""A client that takes 64 KiB of a stream, and no more until it is read."""
RUN = "r"
MEGABYTE = 1 << 20
SHARE = UNDER_WAY_BYTES // 4
Context = grpc.aio.ServicerContext[Any, Any]
Request = chat_service_pb2.StreamRunRequest
Response = chat_service_pb2.StreamRunResponse


class Talker(ChatServiceServicer):
    """Streams texts without end, or, from a cursor on, one whole message of `after_seq` bytes."""

    def __init__(self) -> None:
        self.open = 0

    async def StreamRun(self, request: Request, context: Context) -> AsyncIterator[Response]:
        self.open += 1
        try:
            if request.after_seq:
                yield whole(request.after_seq)
                return
            for seq in range(1, 1_000_000):
                yield Response(
                    event=run_pb2.RunEvent(run_id=RUN, seq=seq, text_delta=run_pb2.TextDelta(text="x" * 2000))
                )
                if seq == 1000:
                    await asyncio.Event().wait()
        finally:
            self.open -= 1


def whole(size: int) -> Response:
    message = conversation_pb2.Message(content="x" * size)
    return Response(event=run_pb2.RunEvent(run_id=RUN, seq=7, completed=run_pb2.RunCompleted(message=message)))


class Place:
    """The talker behind its gate."""

    def __init__(self, gate: Gate, talker: Talker, channel: grpc.aio.Channel) -> None:
        self.gate, self.talker, self.chat = gate, talker, ChatServiceStub(channel)

    def is_writing(self) -> bool:
        """Says whether a stream waits for its client to take something."""
        return any(stream.beat & 1 for streams in self.gate.streams._of_session.values() for stream in streams)

    def watch(self, caller: Caller, size: int = 0) -> Any:
        return self.chat.StreamRun(Request(after_seq=size), metadata=self.gate.metadata(caller), timeout=30)


@asynccontextmanager
async def place(slow_seconds: float = 60) -> AsyncIterator[Place]:
    gate, talker = Gate(open_streams=1000, slow_seconds=slow_seconds), Talker()  # type: ignore[abstract]
    async with guarded(
        gate, lambda server: add_ChatServiceServicer_to_server(talker, server), options=NARROW
    ) as channel:
        yield Place(gate, talker, channel)


async def read(call: Any) -> tuple[list[Any], grpc.aio.AioRpcError | None]:
    """Returns what comes, and how it fails."""
    events: list[Any] = []
    try:
        async for response in call:
            events.append(response.event)  # noqa: PERF401 - what came before the end counts
    except grpc.aio.AioRpcError as error:
        return events, error
    return events, None


async def test_a_stream_that_nobody_reads_ends_with_the_cursor_of_what_was_on_the_way() -> None:
    async with place(slow_seconds=0) as here:
        call = here.watch(a_caller())
        await until(lambda: here.talker.open)
        while here.talker.open:
            await here.gate.streams.end_slow()
            await asyncio.sleep(0)
        events, error = await read(call)
    assert error is not None
    assert (error.code(), info(error).reason) == (grpc.StatusCode.UNAVAILABLE, "WATCHER_TOO_SLOW")
    assert dict(info(error).metadata) == {"run_id": RUN, "last_seq": str(events[-1].seq)}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_that_is_read_does_not_end_for_having_nothing_to_show() -> None:
    async with place(slow_seconds=0) as here:
        call = here.watch(a_caller())
        for _ in range(1000):
            assert await call.read() is not grpc.aio.EOF
        for _ in range(5):
            await here.gate.streams.end_slow()
            await asyncio.sleep(0.01)
        assert not call.done()
        assert here.talker.open == 1


async def test_a_slow_stream_has_its_time() -> None:
    async with place(slow_seconds=60) as here:
        call = here.watch(a_caller())
        await until(lambda: here.talker.open)
        for _ in range(5):
            await here.gate.streams.end_slow()
            await asyncio.sleep(0.01)
        for _ in range(1000):
            assert await call.read() is not grpc.aio.EOF


async def test_a_session_that_ends_ends_its_unread_streams_as_soon_as_a_status_can_go_out() -> None:
    async with place() as here:
        caller = a_caller()
        call = here.watch(caller)
        await until(here.is_writing)
        here.gate.ended.add([caller.session_id])
        await until(lambda: not here.talker.open)
        _, error = await read(call)
    assert error is not None
    assert info(error).reason == "SESSION_ENDED"


async def test_large_answers_that_one_user_leaves_unread_are_few_and_stop_nobody_else() -> None:
    async with place() as here:
        caller = a_caller()
        calls = [here.watch(caller, MEGABYTE) for _ in range(40)]
        await until(lambda: sum(call.done() for call in calls) >= 30)
        refused = next(call for call in calls if call.done())
        events, error = await read(refused)
        assert error is not None
        assert (events, info(error).reason) == ([], "WATCHER_TOO_SLOW")
        assert dict(info(error).metadata) == {"run_id": RUN, "last_seq": "6"}
        others, error = await read(here.watch(a_caller(), MEGABYTE))
        assert (error, len(others[0].completed.message.content)) == (None, MEGABYTE)
        for call in calls:
            call.cancel()


async def test_many_large_answers_that_are_read_all_arrive() -> None:
    async with place() as here:
        callers = [a_caller() for _ in range(8)]
        read_all = await asyncio.gather(*(read(here.watch(caller, MEGABYTE)) for caller in callers for _ in range(4)))
    assert [(len(events), error) for events, error in read_all] == [(1, None)] * 32


# The room for large responses


@asynccontextmanager
async def under_way(room: LargeResponses, user_id: UUID, size: int) -> AsyncIterator[asyncio.Event]:
    """Has a response of this size under way, or waiting, until the event is set or the block ends."""
    taken = asyncio.Event()

    async def carry() -> None:
        async with room.carrying(user_id, size):
            await taken.wait()

    task = asyncio.create_task(carry())
    await asyncio.sleep(0)
    try:
        yield taken
    finally:
        taken.set()
        await task


async def test_a_response_may_be_larger_than_a_share_where_nothing_is_under_way() -> None:
    async with LargeResponses().carrying(uuid4(), 2 * UNDER_WAY_BYTES):
        pass


async def test_who_has_no_room_waits_for_it() -> None:
    room, user = LargeResponses(), uuid4()
    async with under_way(room, user, SHARE) as taken:
        waiting = asyncio.create_task(room.carrying(user, 1).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
        taken.set()
        await asyncio.wait_for(waiting, 5)


async def test_who_waits_for_long_gives_up() -> None:
    room, user = LargeResponses(wait_seconds=0.01), uuid4()
    async with under_way(room, user, SHARE):
        with pytest.raises(WatcherTooSlow):
            await room.carrying(user, 1).__aenter__()


async def test_where_many_wait_the_next_gives_up_at_once() -> None:
    room, user = LargeResponses(wait_seconds=3600), uuid4()
    async with under_way(room, user, SHARE) as taken, under_way(room, user, WAITING_BYTES // 4):
        with pytest.raises(WatcherTooSlow):
            await room.carrying(user, 1).__aenter__()
        taken.set()


async def test_one_users_responses_leave_room_for_others() -> None:
    room = LargeResponses(wait_seconds=0.01)
    async with under_way(room, uuid4(), 2 * SHARE), room.carrying(uuid4(), SHARE):
        pass


async def test_all_together_have_a_bound() -> None:
    room = LargeResponses(wait_seconds=0.01)
    async with under_way(room, uuid4(), UNDER_WAY_BYTES):
        with pytest.raises(WatcherTooSlow):
            await room.carrying(uuid4(), 1).__aenter__()
