"""Connections to PostgreSQL break at any moment, replies are lost, the server restarts: no wrong answer, ever."""

from __future__ import annotations

import asyncio
import time

import grpc

from chatback.v1.auth_service_pb2 import GetCurrentUserRequest
from tests.faults.figures import scaled
from tests.faults.model import Question
from tests.faults.processes import Replica
from tests.faults.scene import Scene, completed

STREAMS = scaled(8, at_most=40)
CUTS = scaled(25)
RECOVERED_SECONDS = 30
"""Far too long for a replica that has its database back; 5 are allowed where machines are not busy."""


async def test_connections_that_are_cut_at_any_moment_cost_no_event(scene: Scene) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(keeps_asking(scene, over))
        for replica in scene.rig.replicas:
            group.create_task(keeps_calling(scene, replica, over))
        for _ in range(CUTS):
            await asyncio.sleep(scene.random.uniform(0.05, 0.25))
            break_connections(scene, scene.random.choice(scene.rig.replicas))
        for replica in scene.rig.replicas:
            replica.database.heal()
        scene.figures.add("PostgreSQL, cut: until every replica answers, s", *await answering(scene))
        over.set()
    await scene.judge()


async def test_a_restart_of_the_database_costs_no_event(scene: Scene) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(keeps_asking(scene, over))
        for replica in scene.rig.replicas:
            group.create_task(keeps_calling(scene, replica, over))
        await asyncio.sleep(scene.random.uniform(0.5, 1.5))
        await (scene.rig.postgres.kill if scene.random.random() < 0.5 else scene.rig.postgres.stop)()
        await scene.rig.postgres.start()
        scene.figures.add("PostgreSQL, restarted: until every replica answers, s", *await answering(scene))
        over.set()
    await scene.judge()


async def test_a_begin_whose_commit_was_not_confirmed_is_made_once(scene: Scene) -> None:
    replica, question = scene.random.choice(scene.rig.replicas), Question()
    conversation, lost = await scene.conversation(), replica.database.lost
    replica.database.lose_replies(to=b"COMMIT")
    last = await scene.watcher().ask(conversation, question, on=replica)
    assert completed(question, last)
    assert (last.attempt, replica.database.lost) == (1, lost + 1)
    assert len(scene.rig.model.calls_for(question)) == 1
    await scene.judge()


async def test_events_whose_commit_was_not_confirmed_are_shown_once(scene: Scene) -> None:
    replica, question = scene.random.choice(scene.rig.replicas), Question(words=150)
    asking, watching = scene.watcher(at=[replica]), scene.watcher()
    conversation, lost = await scene.conversation(), replica.database.lost
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(asking.ask(conversation, question))
        await asking.until_text()
        group.create_task(watching.watch(asking.run_id))
        for times in range(1, 11):
            replica.database.lose_replies()
            await asking.until(lambda _, times=times: replica.database.lost >= lost + times)  # type: ignore[misc]
    assert completed(question, asked.result())
    await scene.judge()


async def keeps_asking(scene: Scene, over: asyncio.Event) -> None:
    """Asks one question after the other; each answer has to be whole."""
    conversation = await scene.conversation()
    while not over.is_set():
        question = Question(words=scene.random.randint(10, 60))
        last = await scene.watcher(drops=0.02).ask(conversation, question)
        assert completed(question, last), last
        assert len(scene.rig.model.calls_for(question)) == last.attempt


async def keeps_calling(scene: Scene, replica: Replica, over: asyncio.Event) -> None:
    """Makes one unary call after the other; each is answered rightly or UNAVAILABLE."""
    while not over.is_set():
        try:
            answered = await scene.client(replica).auth.GetCurrentUser(GetCurrentUserRequest())
            assert answered.user == scene.person.user
        except grpc.aio.AioRpcError as error:
            if not replica.is_away(error):
                raise
        await asyncio.sleep(0.02)


async def answering(scene: Scene) -> list[float]:
    """Returns how many seconds each replica needs from now on until it answers."""
    return await asyncio.gather(*(until_it_answers(scene, replica) for replica in scene.rig.replicas))


async def until_it_answers(scene: Scene, replica: Replica) -> float:
    began = time.monotonic()
    async with asyncio.timeout(RECOVERED_SECONDS):
        while True:
            try:
                await scene.client(replica).auth.GetCurrentUser(GetCurrentUserRequest())
                return time.monotonic() - began
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


def break_connections(scene: Scene, replica: Replica) -> None:
    """Breaks a replica's connections to the database in one way or another."""
    match scene.random.randrange(4):
        case 0:
            replica.database.cut_after(scene.random.randint(1, 2_000))
        case 1:
            replica.database.lose_replies()
        case _:
            replica.database.cut()
