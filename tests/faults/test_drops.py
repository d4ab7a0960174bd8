"""Clients come, drop out and resume at random points, on random replicas."""

from __future__ import annotations

import asyncio

from tests.faults.figures import scaled
from tests.faults.model import Question
from tests.faults.scene import Scene, completed
from tests.faults.watchers import Watcher

STREAMS = scaled(40)
AT_ONCE = 40
ATTACHED_RUNS = scaled(6)
ATTACHERS = 15


async def test_clients_that_drop_and_resume_anywhere_see_every_event_once(scene: Scene) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def answer_is_whole() -> None:
        async with places:
            question = Question(words=scene.random.randint(20, 60), gap=0.02)
            asking, reading, joining = scene.watcher(drops=0.1), scene.watcher(drops=0.1, sse=True), scene.watcher()
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(asking.ask(await scene.conversation(), question))
                await asking.until(lambda watcher: watcher.seq >= scene.random.randint(1, 5))
                group.create_task(reading.watch(asking.run_id))
                group.create_task(joining.watch(asking.run_id, scene.random.randint(0, asking.seq)))
            assert completed(question, asked.result())
            assert len(scene.rig.model.calls_for(question)) == 1

    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(answer_is_whole())
    await scene.judge()


async def test_whoever_comes_while_an_answer_is_made_misses_nothing(scene: Scene) -> None:
    for replica in scene.rig.replicas:
        replica.database.latency = 0.02  # so that there is time between a look into the log and what comes next
    for _ in range(ATTACHED_RUNS):
        question, asking = Question(words=10, gap=0.02), scene.watcher()
        async with asyncio.TaskGroup() as group:
            group.create_task(asking.ask(await scene.conversation(), question))
            await asking.until_text()
            for _ in range(ATTACHERS):
                group.create_task(joins_after(scene, asking, scene.random.uniform(0, 0.4)))
    await scene.judge()


async def joins_after(scene: Scene, asking: Watcher, seconds: float) -> None:
    """Watches a run from a moment on that chance chose."""
    await asyncio.sleep(seconds)
    await scene.watcher().watch(asking.run_id)
