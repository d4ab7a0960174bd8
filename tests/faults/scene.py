"""One scenario on the rig: somebody who asks, clients who watch, and the judgement on all they saw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from random import Random

import grpc

from chatback.client import ChatBack
from chatback.v1.conversation_service_pb2 import CreateConversationRequest
from chatback.v1.run_pb2 import RunEvent
from tests.e2e.caller import Client, Person
from tests.faults.figures import SEED, Figures
from tests.faults.history import History, kind_of
from tests.faults.model import Question
from tests.faults.processes import Replica
from tests.faults.readers import SseWatcher
from tests.faults.rig import Rig
from tests.faults.truth import asked_more_than_once, come_to_rest, stored_runs
from tests.faults.validators import Case, offences
from tests.faults.watchers import IDLE_SECONDS, Watcher

TAKEN_OVER_SECONDS = 40
"""Far too long for a take-over, which takes 15 seconds at most where machines are not busy with other things."""
IMPATIENT_SECONDS = 3
NEW = CreateConversationRequest()
REPLAYED_LIMIT = 100
"""How many runs of a scenario are read again at the end."""
BROKEN = ("Traceback", "call.broken", "rest.broken", "run.broken", "background.died", "never retrieved")
"""Words in the log of a replica that met something nobody foresaw."""


class Scene:
    """What a test works with. Chance is the seed's and the test's name's.

    Where replicas fall silent, `expects_silence` has to be set: then clients soon try others, and may do so.
    """

    def __init__(self, name: str, rig: Rig, person: Person, figures: Figures) -> None:
        self.rig = rig
        self.person = person
        self.figures = figures
        self.history = History()
        self.expects_silence = False
        self.random = Random(f"{SEED} {name}")
        self._token = person.tokens.access_token
        self._logs = {replica: len(replica.said) for replica in rig.replicas}
        self._watchers = 0

    @property
    def live(self) -> Sequence[Replica]:
        """The shared replicas that run at this moment."""
        return [replica for replica in self.rig.replicas if replica.runs]

    def client(self, replica: Replica) -> Client:
        """Returns the stubs of one replica."""
        return Client(replica.channel, self._token)

    async def conversation(self) -> str:
        """Makes a conversation at a replica that works."""
        async with asyncio.timeout(60):
            while True:
                replica = self.random.choice(self.live)
                try:
                    made = await self.client(replica).conversations.CreateConversation(NEW)
                    return made.conversation.conversation_id
                except grpc.aio.AioRpcError as error:
                    if not replica.is_away(error):
                        raise
                    await asyncio.sleep(0.1)

    async def conversations(self, count: int) -> Sequence[str]:
        """Makes so many conversations."""
        return await asyncio.gather(*(self.conversation() for _ in range(count)))

    def watcher(self, *, at: Sequence[Replica] = (), drops: float = 0.0, sse: bool = False) -> Watcher:
        """Returns a new client; without places it goes to any of the shared replicas."""
        self._watchers += 1
        return (SseWatcher if sse else Watcher)(
            name=f"{'reader' if sse else 'watcher'} {self._watchers}",
            token=self._token,
            places=at or self.rig.replicas,
            history=self.history,
            random=self.random,
            drops=drops,
            idle_seconds=IMPATIENT_SECONDS if self.expects_silence else IDLE_SECONDS,
        )

    def library(self) -> ChatBack:
        """Returns the project's own client, which knows all shared replicas."""
        ports = ",".join(replica.target for replica in self.rig.replicas)
        options = [("grpc.lb_policy_name", "round_robin"), ("grpc.use_local_subchannel_pool", 1)]
        return ChatBack(f"ipv4:{ports}", credentials=self.person.tokens, patience_seconds=100, options=options)

    async def took_over(self, name: str, died_at: float, watchers: Iterable[Watcher], attempt: int = 1) -> None:
        """Waits until the dead one's runs go on or have ended, in this attempt or later, and notes how long it took."""
        for watcher in watchers:
            run_id = watcher.run_id
            await watcher.until(lambda _, run_id=run_id: self.history.resumed(run_id, died_at, attempt))  # type: ignore[misc]
            seconds = self.history.resumed(run_id, died_at, attempt) or 0
            self.figures.add(name, seconds)
            assert seconds < TAKEN_OVER_SECONDS, f"{name}: {seconds}"

    async def judge(self) -> None:
        """Lets all come to rest and every live replica show the runs once more; fails on any offence."""
        async with self.rig.database() as connection:
            await come_to_rest(connection, self.person.user.user_id)
            stored = await stored_runs(connection, self.person.user.user_id, self.client(self.live[0]))
            found = [*await asked_more_than_once(connection, self.person.user.user_id)]
        shown = self.random.sample(sorted(stored), min(len(stored), REPLAYED_LIMIT))
        await self._replay({run_id: stored[run_id].last_seq for run_id in shown})
        found += offences(Case(self.history, stored))
        found += [] if self.expects_silence else self.history.silences
        found += [f"{replica.name} logged {line}" for replica in self._logs for line in self._defects(replica)]
        assert not found, "\n".join([f"CHATBACK_FAULT_SEED={SEED}: {len(found)} offences", *found[:20]])
        self.figures.count("answers", len(stored))
        self.figures.count("watched from their first event or a cursor to their end", len(self.history.watches()))
        self.figures.count("events seen", len(self.history.sights))
        self.figures.count("streams that broke", len(self.history.breaks))

    async def _replay(self, newest: dict[str, int]) -> None:
        """Reads every run from the start and from a cursor that chance chooses, at each live replica."""
        places = asyncio.Semaphore(20)

        async def read(replica: Replica, run_id: str, after_seq: int) -> None:
            async with places:
                await self.watcher(at=[replica]).watch(run_id, after_seq)

        async with asyncio.TaskGroup() as group:
            for run_id, last_seq in newest.items():
                for replica in self.live:
                    for after_seq in (0, self.random.randrange(last_seq)):
                        group.create_task(read(replica, run_id, after_seq))

    def _defects(self, replica: Replica) -> Sequence[str]:
        lines = replica.said[self._logs[replica] :].splitlines()
        return [line[:3000] for line in lines if any(word in line for word in BROKEN)]


def completed(question: Question, event: RunEvent) -> bool:
    """Says whether this is the end of a whole answer to the question, of whichever call of the model."""
    content = event.completed.message.content
    call = int(content.partition(".")[2].partition(".")[0] or 0)
    return kind_of(event) == "completed" and content == question.answer(call)
