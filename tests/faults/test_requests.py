"""Questions that are sent more than once, cancelled elsewhere, or answered by a model that breaks off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
import pytest

from chatback.v1.chat_service_pb2 import CancelRunRequest, StreamRunRequest
from tests.e2e.caller import failure
from tests.faults.figures import scaled
from tests.faults.history import kind_of
from tests.faults.model import Question
from tests.faults.rig import Rig
from tests.faults.scene import Scene, completed

EQUAL_REQUESTS = 50
CANCELS = scaled(9)


async def test_one_question_sent_fifty_times_at_once_is_answered_once(scene: Scene) -> None:
    conversation, question = await scene.conversation(), Question()
    watchers = [scene.watcher() for _ in range(EQUAL_REQUESTS)]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(each.ask(conversation, question, request_id="the-same")) for each in watchers]
    assert all(completed(question, each.result()) for each in asked)
    assert len({watcher.run_id for watcher in watchers}) == 1
    assert len(scene.rig.model.calls_for(question)) == 1
    await scene.judge()


async def test_a_question_that_is_sent_again_later_gets_its_own_answer(scene: Scene) -> None:
    conversation, first, second = await scene.conversation(), Question(), Question()
    assert completed(first, await scene.watcher().ask(conversation, first, request_id="first"))
    assert completed(second, await scene.watcher().ask(conversation, second, request_id="second"))
    for replica in scene.rig.replicas:
        assert completed(first, await scene.watcher(at=[replica]).ask(conversation, first, request_id="first"))
    await scene.judge()


async def test_a_cursor_that_nobody_was_given_is_refused_by_every_replica(scene: Scene) -> None:
    asking = scene.watcher()
    await asking.ask(await scene.conversation(), Question(words=5))
    for replica in scene.rig.replicas:
        request = StreamRunRequest(run_id=asking.run_id, after_seq=asking.seq + 1)
        refusal = await failure(scene.client(replica).chat.StreamRun(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD")
    await scene.judge()


async def silence(rig: Rig) -> None:
    """Leaves the replicas without Redis."""
    for replica in rig.replicas:
        replica.redis.refuse()


async def leave_be(_: Rig) -> None:
    """Breaks nothing."""


@pytest.mark.parametrize("fault", [leave_be, silence], ids=["over the bus", "without the bus"])
async def test_a_cancel_at_another_replica_closes_the_stream_of_the_model(
    scene: Scene, fault: Callable[[Rig], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    await fault(scene.rig)
    name = f"cancelled elsewhere, {request.node.callspec.id}: until the model's stream is closed, s"
    async with asyncio.TaskGroup() as group:
        for _ in range(CANCELS):
            group.create_task(is_cancelled(scene, name))
    await scene.judge()


async def is_cancelled(scene: Scene, name: str) -> None:
    owner, other = scene.random.sample(scene.rig.replicas, 2)
    asking, question = scene.watcher(at=[owner]), Question(words=5_000)
    asked = asyncio.create_task(asking.ask(await scene.conversation(), question))
    await asking.until_text()
    began = time.monotonic()
    await scene.client(other).chat.CancelRun(CancelRunRequest(run_id=asking.run_id))
    (call,) = scene.rig.model.calls_for(question)
    async with asyncio.timeout(30):
        await call.left.wait()
    assert call.left_at is not None
    scene.figures.add(name, call.left_at - began)
    assert call.left_at - began < 10
    assert kind_of(await asked) == "cancelled"


@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_an_answer_whose_model_breaks_off_is_not_taken_for_whole(scene: Scene, end: str) -> None:
    asking, question = scene.watcher(), Question(words=10, end=end)
    last = await asking.ask(await scene.conversation(), question)
    assert (kind_of(last), last.failed.reason) == ("failed", "MODEL_STREAM_BROKEN")
    assert "".join(event.text_delta.text for event in asking.events) == question.answer(1)
    await scene.judge()
