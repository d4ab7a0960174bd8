"""Replicas are killed at every failpoint there is; each answer goes on elsewhere and is whole."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress

import grpc

from application.failpoint import FAILPOINTS
from chatback.v1.chat_service_pb2 import CancelRunRequest
from tests.faults.figures import scaled
from tests.faults.history import kind_of
from tests.faults.model import Question
from tests.faults.processes import Replica
from tests.faults.scene import Scene, completed
from tests.faults.watchers import Watcher

BEGINNING = ("before_begin_commit", "after_begin_commit")
MAKING = ("after_piece", "before_append", "after_append_before_publish", "after_publish")
ENDING = ("before_finish", "after_finish_before_publish")
LEAVING = ("before_leave", "after_leave")
CANCELLING = ("after_cancel_commit",)
ADOPTING = ("after_fence_expired", "after_adopt")
BYSTANDERS = 2
ROUNDS = scaled(1)
TAKE_OVER = "kill -9: until the answer goes on or has ended, s"
HAND_OVER = "killed after it had left: until the answer goes on, s"
CANCEL = "killed after the cancel's commit: until the run is cancelled, s"


def test_every_failpoint_has_its_kill() -> None:
    assert sorted(FAILPOINTS) == sorted([*BEGINNING, *MAKING, *ENDING, *LEAVING, *CANCELLING, *ADOPTING])


async def test_answers_outlive_a_kill_at_every_failpoint_of_owners_and_of_those_who_cancel(scene: Scene) -> None:
    scene.expects_silence = True
    for _ in range(ROUNDS):
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            names = (*BEGINNING, *MAKING, *ENDING, *LEAVING, *CANCELLING)
            # All are there before the first dies, and dead before its lease is over: none takes over from another.
            victims = [await stack.enter_async_context(scene.rig.replica(name, database_pool_size=4)) for name in names]
            await scene.rig.start(*victims)
            for failpoint, victim in zip(names, victims, strict=True):
                group.create_task(death_at(failpoint)(scene, failpoint, victim))
    await scene.judge()


def death_at(failpoint: str) -> Callable[[Scene, str, Replica], Coroutine[None, None, None]]:
    """Chooses how a replica comes to this failpoint."""
    if failpoint in CANCELLING:
        return canceller_dies
    return leaver_dies if failpoint in LEAVING else owner_dies


async def owner_dies(scene: Scene, failpoint: str, victim: Replica) -> None:
    """Kills a replica that makes three answers while it comes through the failpoint."""
    async with asyncio.TaskGroup() as group:
        watchers = await bystanders(scene, group, victim)
        asking, question = scene.watcher(), Question(words=10 if failpoint in ENDING else 50)
        conversation = await scene.conversation()
        victim.arm(failpoint, "kill", scene.random.randint(1, 8) if failpoint in MAKING else 1)
        asked = group.create_task(asking.ask(conversation, question, on=victim))
        assert await victim.ended() == -signal.SIGKILL
        assert victim.acted[failpoint].is_set()
        assert completed(question, await asked), f"{failpoint}: {asked.result()}"
        assert len(scene.rig.model.calls_for(question)) <= asked.result().attempt
        await scene.took_over(TAKE_OVER, victim.died_at, [*watchers, asking])


async def leaver_dies(scene: Scene, failpoint: str, victim: Replica) -> None:
    """Kills a replica that was told to leave, with answers that need longer than it may take."""
    async with asyncio.TaskGroup() as group:
        watchers = await bystanders(scene, group, victim)
        victim.arm(failpoint, "kill")
        victim.signal(signal.SIGTERM)
        assert await victim.ended() == -signal.SIGKILL
        assert victim.acted[failpoint].is_set()
        await scene.took_over(HAND_OVER if failpoint == "after_leave" else TAKE_OVER, victim.died_at, watchers)


async def canceller_dies(scene: Scene, failpoint: str, victim: Replica) -> None:
    """Kills the replica that took a CancelRun before it can tell the run's owner."""
    asking, question = scene.watcher(), Question(words=2_000)
    asked = asyncio.create_task(asking.ask(await scene.conversation(), question))
    await asking.until_text()
    victim.arm(failpoint, "kill")
    with suppress(grpc.aio.AioRpcError):
        await scene.client(victim).chat.CancelRun(CancelRunRequest(run_id=asking.run_id))
    assert await victim.ended() == -signal.SIGKILL
    assert kind_of(await asked) == "cancelled"
    await scene.took_over(CANCEL, victim.died_at, [asking])
    async with asyncio.timeout(30):
        await scene.rig.model.calls_for(question)[0].left.wait()


async def test_answers_outlive_a_kill_of_those_who_take_them_over(scene: Scene) -> None:
    scene.expects_silence = True
    async with scene.rig.replica("owner") as owner, asyncio.TaskGroup() as group:
        await scene.rig.start(owner)
        watchers = await bystanders(scene, group, owner)
        await owner.kill()
        await until_a_lease_is_over(scene)
        await first_dies(scene.live, "after_fence_expired")
        second = await first_dies(scene.live, "after_adopt")
        await scene.took_over(TAKE_OVER, owner.died_at, watchers)
        await scene.took_over(TAKE_OVER, second.died_at, watchers, attempt=3)
        assert len(scene.live) == 1
    await scene.judge()


async def bystanders(scene: Scene, group: asyncio.TaskGroup, victim: Replica) -> Sequence[Watcher]:
    """Has answers made by a replica, and returns who watches them, once all have text."""
    watchers = [scene.watcher() for _ in range(BYSTANDERS)]
    for watcher in watchers:
        group.create_task(answer_is_whole(watcher, await scene.conversation(), victim))
    for watcher in watchers:
        await watcher.until_text()
    joining = scene.watcher()
    group.create_task(joining.watch(watchers[0].run_id))
    return watchers


async def answer_is_whole(watcher: Watcher, conversation: str, on: Replica) -> None:
    question = Question(words=100, gap=0.05)
    last = await watcher.ask(conversation, question, on=on)
    assert completed(question, last), f"{on.name}: {last}"


async def first_dies(replicas: Sequence[Replica], failpoint: str) -> Replica:
    """Waits until one of the replicas was killed at the failpoint, and spares the others."""
    for replica in replicas:
        replica.arm(failpoint, "kill")
    acted = [asyncio.create_task(replica.acted[failpoint].wait()) for replica in replicas]
    await asyncio.wait(acted, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    (dead,) = [replica for replica, task in zip(replicas, acted, strict=True) if task.done()]
    for replica, task in zip(replicas, acted, strict=True):
        replica.disarm(failpoint)
        task.cancel()
    assert await dead.ended() == -signal.SIGKILL
    return dead


async def until_a_lease_is_over(scene: Scene) -> None:
    """Waits until a replica's lease has run out that nobody has fenced yet."""
    over = "SELECT count(*) FROM replicas WHERE NOT fenced AND lease_until < clock_timestamp() + interval '0.2 s'"
    async with scene.rig.database() as connection, asyncio.timeout(60):
        while not await connection.fetchval(over):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.02)
