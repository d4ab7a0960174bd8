"""Replicas that are stopped, or cut off from the database, for longer than their lease, and then go on."""

from __future__ import annotations

import asyncio
import signal
import time

import grpc
import pytest

from chatback.v1.chat_service_pb2 import GetRunRequest
from tests.e2e.caller import failure_in
from tests.faults.figures import SCALE
from tests.faults.model import Question
from tests.faults.processes import Replica
from tests.faults.scene import Scene, completed
from tests.faults.watchers import Watcher

CUT_OFF_SECONDS = 30 if SCALE > 1 else 0
"""How long one replica is without the database; in CI until its runs were taken over."""
STOPPED = "SIGSTOP: until the answer goes on elsewhere, s"
CUT_OFF = "cut off from PostgreSQL: until the answer goes on elsewhere, s"
RECOVERED = "cut off from PostgreSQL: after it until the replica makes answers again, s"
TOLD = "cut off from PostgreSQL: until its watchers are told, s"


async def test_replicas_that_were_stopped_past_their_lease_write_nothing_more(scene: Scene) -> None:
    scene.expects_silence = True
    writing, ending, other = scene.random.sample(scene.rig.replicas, 3)
    async with asyncio.TaskGroup() as group:
        for stopped, failpoint in ((writing, "before_append"), (ending, "before_finish")):
            group.create_task(is_stopped_past_its_lease(scene, stopped, failpoint, other))
    await asyncio.gather(*(makes_answers_again(scene, replica) for replica in scene.rig.replicas))
    await scene.judge()


async def is_stopped_past_its_lease(scene: Scene, stopped: Replica, failpoint: str, other: Replica) -> None:
    """Stops a replica that makes answers, until another one goes on with them; then it finds that it is fenced."""
    async with asyncio.TaskGroup() as group:
        watchers = [await asked_on(scene, group, stopped, words=60, gap=0.1) for _ in range(3)]
        pinned = scene.watcher(at=[stopped])
        pinned.idle_seconds = 60
        group.create_task(pinned.watch(watchers[0].run_id))
        await pinned.until_text()
        stopped.arm(failpoint, "stop", scene.random.randint(1, 5) if failpoint == "before_append" else 1)
        if failpoint == "before_finish":
            watchers.append(await asked_on(scene, group, stopped, words=5, gap=0.1, until="started"))
        async with asyncio.timeout(60):
            await stopped.acted[failpoint].wait()
        stopped_at = time.monotonic()
        for watcher in watchers:
            watcher.places = [other]
        await scene.took_over(STOPPED, stopped_at, watchers)
        stopped.signal(signal.SIGCONT)


async def test_a_replica_that_was_stopped_inside_a_transaction_holds_nobody_up_for_ever(scene: Scene) -> None:
    scene.expects_silence = True
    stopped, *others = scene.random.sample(scene.rig.replicas, 3)
    conversation, question = await scene.conversation(), Question()
    async with asyncio.TaskGroup() as group:
        asking = scene.watcher(at=others)
        stopped.arm("before_begin_commit", "stop")
        asked = group.create_task(asking.ask(conversation, question, on=stopped))
        async with asyncio.timeout(60):
            await stopped.acted["before_begin_commit"].wait()
        stopped_at = time.monotonic()
        await asking.until(lambda watcher: watcher.seq)
        scene.figures.add("SIGSTOP in a transaction: until its conversation takes the question, s", since(stopped_at))
        stopped.signal(signal.SIGCONT)
        assert completed(question, await asked)
    assert len(scene.rig.model.calls_for(question)) == 1
    await makes_answers_again(scene, stopped)
    await scene.judge()


async def test_a_replica_that_is_cut_off_from_the_database_shows_nothing_stale(scene: Scene) -> None:
    scene.expects_silence = True
    lonely, *others = scene.random.sample(scene.rig.replicas, 3)
    async with asyncio.TaskGroup() as group:
        watchers = [await asked_on(scene, group, lonely, words=60, gap=0.1) for _ in range(3)]
        pinned = scene.watcher(at=[lonely])
        pinned.idle_seconds = 60
        group.create_task(pinned.watch(watchers[0].run_id))
        await pinned.until_text()
        lonely.database.blackhole()
        cut_at = time.monotonic()
        for watcher in watchers:
            watcher.places = others
        await is_unavailable(scene, lonely, watchers[0].run_id)
        for watcher in watchers:
            await watcher.until_kind("attempt_reset")
        await scene.took_over(CUT_OFF, cut_at, watchers)
        await asyncio.sleep(max(0, cut_at + CUT_OFF_SECONDS - time.monotonic()))
        lonely.database.heal()
        healed_at = time.monotonic()
        await makes_answers_again(scene, lonely)
        scene.figures.add(RECOVERED, since(healed_at))
    told = next(each.at for each in scene.history.breaks if each.watcher == pinned.name and each.at > cut_at) - cut_at
    scene.figures.add(TOLD, told)
    assert told < 20
    await scene.judge()


async def asked_on(
    scene: Scene, group: asyncio.TaskGroup, replica: Replica, *, words: int, gap: float, until: str = "text_delta"
) -> Watcher:
    """Has a replica make an answer, and returns who watches it."""
    question, watcher = Question(words=words, gap=gap), scene.watcher()
    conversation = await scene.conversation()

    async def is_whole() -> None:
        last = await watcher.ask(conversation, question, on=replica)
        assert completed(question, last), last

    group.create_task(is_whole())
    await watcher.until_kind(until)
    return watcher


async def is_unavailable(scene: Scene, replica: Replica, run_id: str) -> None:
    """Checks that a call to a replica without a database ends soon, and how."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.client(replica).chat.GetRun(GetRunRequest(run_id=run_id))
    told = failure_in(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")


async def makes_answers_again(scene: Scene, replica: Replica) -> None:
    """Checks that a replica takes and makes a run of its own."""
    question = Question(words=3)
    last = await scene.watcher(at=[replica]).ask(await scene.conversation(), question)
    assert completed(question, last)
    assert last.attempt == 1


def since(moment: float) -> float:
    return time.monotonic() - moment
