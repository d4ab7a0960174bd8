"""How the client calls several replicas, of which some go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from chatback.client import ApiKey, ChatBack, pauses
from chatback.client.connection import Option
from chatback.v1.chat_service_pb2 import StreamRunRequest
from chatback.v1.conversation_pb2 import Message
from chatback.v1.run_pb2 import RunCompleted, RunStarted, TextDelta
from tests.unit.client_service import USER, WHO, Scripted, event, served, status

STARTED = event(1, started=RunStarted(model="m"))
HELLO = event(2, text_delta=TextDelta(text="Hello"))
COMPLETED = event(3, completed=RunCompleted(message=Message(content="Hello")))
DRAINING = status(grpc.StatusCode.UNAVAILABLE, "REPLICA_DRAINING", run_id="run", last_seq="2")


@pytest.fixture(autouse=True)
def no_time_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for less between attempts."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Scripted replicas, their servers and a client of all."""

    scripts: Sequence[Scripted]
    servers: Sequence[grpc.aio.Server]
    chat: ChatBack

    def calls(self, method: str) -> Sequence[int]:
        """Returns how many calls of the method each replica had."""
        return [len(script.called(method)) for script in self.scripts]

    async def stop_who_answers(self, method: str) -> None:
        """Stops the replica that has been called."""
        await self.servers[self.calls(method).index(1)].stop(None)


@asynccontextmanager
async def replicas(*scripts: Scripted, options: Sequence[Option] = ()) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(served(script)) for script in scripts]
        chat = ChatBack([target for target, _ in started], credentials=ApiKey("k"), options=options)
        yield Replicas(scripts, [server for _, server in started], await stack.enter_async_context(chat))


async def test_calls_take_turns() -> None:
    async with replicas(*(Scripted(GetCurrentUser=[USER]) for _ in range(2))) as several:
        while not all(several.calls("GetCurrentUser")):
            await several.chat.auth.GetCurrentUser(WHO)
        before = several.calls("GetCurrentUser")
        for _ in range(10):
            await several.chat.auth.GetCurrentUser(WHO)
        after = several.calls("GetCurrentUser")
    assert [now - then for now, then in zip(after, before, strict=True)] == [5, 5]


async def test_calls_take_turns_unless_the_options_say_otherwise() -> None:
    options = [("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {}}]}')]
    async with replicas(*(Scripted(GetCurrentUser=[USER]) for _ in range(2)), options=options) as several:
        for _ in range(10):
            await several.chat.auth.GetCurrentUser(WHO)
        assert several.calls("GetCurrentUser") == [10, 0]


async def test_a_replica_that_is_gone_is_passed_over() -> None:
    async with replicas(*(Scripted(GetCurrentUser=[USER]) for _ in range(2))) as several:
        await several.servers[0].stop(None)
        for _ in range(4):
            await several.chat.auth.GetCurrentUser(WHO)
        assert several.calls("GetCurrentUser") == [0, 4]


async def test_a_question_that_a_draining_replica_refuses_is_asked_elsewhere() -> None:
    draining, other = Scripted(SendMessage=[[DRAINING]]), Scripted(SendMessage=[[STARTED, COMPLETED]])
    async with replicas(draining, other) as several:
        for _ in range(4):
            assert (await several.chat.ask("c", "Hi")).content == "Hello"
        assert draining.calls
        assert len(other.calls) == 4


async def test_an_answer_goes_on_elsewhere_when_its_replica_dies() -> None:
    scripts = [Scripted(SendMessage=[[STARTED, HELLO, asyncio.Event()]], StreamRun=[[COMPLETED]]) for _ in range(2)]
    async with replicas(*scripts) as several:
        answer = several.chat.send("c", "Hi")
        events = [await anext(answer), await anext(answer)]
        await several.stop_who_answers("SendMessage")
        events += [event async for event in answer]
        assert events == [STARTED, HELLO, COMPLETED]
        (resumption,) = (call for script in scripts for call in script.called("StreamRun"))
        assert StreamRunRequest.FromString(resumption.request) == StreamRunRequest(run_id="run", after_seq=2)
        assert several.calls("SendMessage") == several.calls("StreamRun")[::-1]


async def test_an_answer_goes_on_elsewhere_when_its_replica_drains() -> None:
    scripts = [
        Scripted(SendMessage=[[STARTED, HELLO, DRAINING]], StreamRun=[[DRAINING]]),
        Scripted(SendMessage=[[DRAINING]], StreamRun=[[COMPLETED]]),
    ]
    async with replicas(*scripts) as several:
        answer = several.chat.send("c", "Hi")
        assert [event async for event in answer] == [STARTED, HELLO, COMPLETED]


@pytest.mark.parametrize(
    "targets", [[], ["chatback-1:50051", "chatback-2:50051"], ["10.0.0.1:50051", "[::1]:50051"], ["10.0.0.1"]]
)
def test_replicas_are_addresses_of_one_kind(targets: list[str]) -> None:
    with pytest.raises(ValueError, match="ip:port"):
        ChatBack(targets)


async def test_replicas_may_have_addresses_of_ipv6() -> None:
    async with ChatBack(["[::1]:1", "[::1]:2"]) as chat:
        assert chat.channel.get_state() is grpc.ChannelConnectivity.IDLE
