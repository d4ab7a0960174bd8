"""Everything breaks at once, in ways that chance picks; what was shown holds all the same, and all comes to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.faults.figures import SCALE, scaled
from tests.faults.gremlins import Gremlins
from tests.faults.model import Question
from tests.faults.scene import Scene
from tests.faults.watchers import Watcher

SECONDS = min(120, 12 * SCALE)
STREAMS = scaled(10, at_most=30)


async def test_what_was_shown_holds_whatever_breaks(scene: Scene) -> None:
    scene.expects_silence = True
    over, gremlins = asyncio.Event(), Gremlins(scene.rig, scene.random, scene.figures)
    conversations = await scene.conversations(20 * STREAMS)
    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(keeps_asking(scene, conversations[number::STREAMS], over))
        plagues = [group.create_task(gremlins.plague(replica, over)) for replica in scene.rig.replicas]
        plagues.append(group.create_task(gremlins.plague_servers(over)))
        await asyncio.sleep(SECONDS)
        over.set()
        await asyncio.gather(*plagues)
        await scene.rig.heal()
    await scene.judge()


async def keeps_asking(scene: Scene, conversations: Sequence[str], over: asyncio.Event) -> None:
    """Asks one question after the other, each in a conversation of its own, and lets others watch the answer."""
    for conversation in conversations:
        question = Question(words=scene.random.randint(5, 150), gap=scene.random.uniform(0.005, 0.05))
        asking = scene.watcher(drops=0.01)
        async with asyncio.TaskGroup() as group:
            group.create_task(asking.ask(conversation, question))
            await asking.until(lambda watcher: watcher.seq)
            group.create_task(joins(scene, asking))
        if over.is_set():
            return


async def joins(scene: Scene, asking: Watcher) -> None:
    await scene.watcher(drops=0.01, sse=scene.random.random() < 0.3).watch(asking.run_id)
