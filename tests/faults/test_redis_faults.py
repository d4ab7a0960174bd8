"""Redis is a cache: it may be flushed, killed or silent, and no event is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from tests.faults.figures import SCALE, percentile, scaled
from tests.faults.model import Question
from tests.faults.rig import Rig
from tests.faults.scene import Scene, completed
from tests.faults.watchers import Watcher

STREAMS = scaled(12, at_most=50)
SILENT_SECONDS = 10 if SCALE > 1 else 2
RECOVERED_DELAY = 0.4
"""Seconds; through the database alone an event takes half a second in the median."""


async def flush(rig: Rig) -> None:
    """Empties Redis."""
    async with Redis(unix_socket_path=rig.valkey.socket) as redis:
        await redis.flushall()


async def cut(rig: Rig) -> None:
    """Resets all connections to Redis."""
    assert sum(replica.redis.cut() for replica in rig.replicas) > 0


async def kill(rig: Rig) -> None:
    """Kills Redis and starts another."""
    await rig.valkey.kill()
    await rig.valkey.start()


async def fall_silent(rig: Rig) -> None:
    """Lets nothing pass to or from Redis for some seconds."""
    for replica in rig.replicas:
        replica.redis.blackhole()
    await asyncio.sleep(SILENT_SECONDS)
    for replica in rig.replicas:
        replica.redis.heal()


@pytest.mark.parametrize("fault", [flush, cut, kill, fall_silent], ids=lambda fault: fault.__name__)
async def test_no_event_is_lost_or_doubled_while_redis_fails(
    scene: Scene, fault: Callable[[Rig], Awaitable[None]]
) -> None:
    async with asyncio.TaskGroup() as group:
        remote = [await watched_from_afar(scene, group, Question(words=80, gap=0.04)) for _ in range(STREAMS)]
        for watcher in remote:
            await watcher.until_text()
        await fault(scene.rig)
        failed_at = time.monotonic()
        recovered_at = await recovery(scene)
    scene.figures.add(f"Redis, {fault.__name__}: an event's way to another replica, s", *delays(scene, remote))
    scene.figures.add(f"Redis, {fault.__name__}: until the bus works again, s", recovered_at - failed_at)
    await scene.judge()


async def test_the_end_of_a_run_arrives_without_redis(scene: Scene) -> None:
    for replica in scene.rig.replicas:
        replica.redis.blackhole()
    async with asyncio.TaskGroup() as group:
        remote = [await watched_from_afar(scene, group, Question(words=20)) for _ in range(STREAMS)]
    scene.figures.add("Redis, not there: an event's way to another replica, s", *delays(scene, remote))
    for replica in scene.rig.replicas:
        replica.redis.heal()
    await scene.judge()


async def watched_from_afar(scene: Scene, group: asyncio.TaskGroup, question: Question) -> Watcher:
    """Has one replica make an answer, and another show it to the watcher that is returned."""
    owner, other = scene.random.sample(scene.rig.replicas, 2)
    asking, watching = scene.watcher(at=[owner]), scene.watcher(at=[other], sse=scene.random.random() < 0.3)
    conversation = await scene.conversation()

    async def is_whole() -> None:
        last = await asking.ask(conversation, question)
        assert completed(question, last), last

    group.create_task(is_whole())
    await asking.until(lambda watcher: watcher.seq)
    group.create_task(watching.watch(asking.run_id))
    return watching


def delays(scene: Scene, watchers: Sequence[Watcher]) -> Sequence[float]:
    """Returns how long events were on their way from their making to these watchers, in seconds."""
    names, offset = {watcher.name for watcher in watchers}, time.time() - time.monotonic()
    sights = [sight for sight in scene.history.sights if sight.watcher in names]
    return [sight.at + offset - sight.event.create_time.ToMicroseconds() / 1e6 for sight in sights]


async def recovery(scene: Scene) -> float:
    """Asks until events come over the bus again, between any two replicas; returns when that was."""
    async with asyncio.timeout(60):
        while True:
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                remote = [await watched_from_afar(scene, group, Question(words=30)) for _ in range(6)]
            if all(percentile(delays(scene, [watcher]), 0.5) < RECOVERED_DELAY for watcher in remote):
                return began
