"""All replicas are restarted one after the other while answers are made, and none is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict

from chatback.client import ChatBack
from tests.faults.figures import scaled
from tests.faults.history import kind_of
from tests.faults.model import Question
from tests.faults.readers import ask_with_the_client
from tests.faults.rig import DRAIN_SECONDS
from tests.faults.scene import Scene, completed

STREAMS = scaled(10, at_most=20)
LIBRARY_STREAMS = scaled(5, at_most=10)
ROLLS = scaled(1)


async def test_no_answer_is_lost_while_all_replicas_are_restarted_in_turn(scene: Scene) -> None:
    over = asyncio.Event()
    async with scene.library() as chat, asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(keeps_asking(scene, over))
        for _ in range(LIBRARY_STREAMS):
            group.create_task(keeps_asking_with_the_client(scene, chat, over))
        for _ in range(ROLLS):
            await restart_all(scene)
        over.set()
    scene.figures.add("handed over: from the last event to that of the next attempt, s", *hand_overs(scene))
    resets = [sight.event for sight in scene.history.sights if kind_of(sight.event) == "attempt_reset"]
    assert {event.attempt_reset.reason for event in resets} <= {"REPLICA_DRAINING"}
    scene.figures.count("rolling restart: answers handed over", len({event.run_id for event in resets}))
    scene.figures.count("rolling restart: answers", len(scene.history.run_ids))
    await scene.judge()


def hand_overs(scene: Scene) -> list[float]:
    """Returns the seconds between the last event of one attempt and the first of the next, as they were first seen."""
    times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    known: set[tuple[str, int]] = set()
    for sight in scene.history.sights:
        if (sight.event.run_id, sight.event.seq) not in known:
            known.add((sight.event.run_id, sight.event.seq))
            times[sight.event.run_id, sight.event.attempt].append(sight.at)
    return [min(seen) - max(times[run_id, attempt - 1]) for (run_id, attempt), seen in times.items() if attempt > 1]


async def restart_all(scene: Scene) -> None:
    for replica in scene.rig.replicas:
        asked_at = time.monotonic()
        replica.signal(signal.SIGTERM)
        assert await replica.ended() == 0, replica.said[-2000:]
        scene.figures.add(f"SIGTERM with a drain of {DRAIN_SECONDS} s: until the end, s", time.monotonic() - asked_at)
        await replica.start()


async def keeps_asking(scene: Scene, over: asyncio.Event) -> None:
    """Asks one question after the other; each answer has to be whole."""
    conversation = await scene.conversation()
    while not over.is_set():
        question = Question(words=scene.random.randint(30, 150), gap=0.03)
        last = await scene.watcher().ask(conversation, question)
        assert completed(question, last), last


async def keeps_asking_with_the_client(scene: Scene, chat: ChatBack, over: asyncio.Event) -> None:
    """Does the same with the project's own client."""
    conversation = await scene.conversation()
    while not over.is_set():
        question = Question(words=scene.random.randint(30, 150), gap=0.03)
        last = await ask_with_the_client(chat, conversation, question, scene.history)
        assert completed(question, last), last
