"""Answers as people get them, stored, ended long ago and packed."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from adapters.postgres.pool import Pool
from adapters.postgres.run_log import PostgresRunLog
from adapters.postgres.unit_of_work import PostgresUnitOfWorkFactory
from domain.conversation import Conversation, Message, MessageRole, MessageStatus, Usage
from domain.identity import Role, User
from domain.run import FinishReason, Run, RunEvent, SendOptions, Started, TextDelta, end

WARM_UP_ANSWERS, ANSWERS, TOKENS = 50, 300, 1_000
AGO = timedelta(hours=2)
_SPOKEN = (
    "the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word"
    " but not what all were we when your can said there use an each which she do how their if will up other about out"
    " many then them these so some her would make like him into time has look two more write go see number no way"
    " could people my than first water been call who oil its now find long down day did get come made may part over"
    " database replica transaction commit index latency answer question because however, therefore, example: value."
)
WORDS = _SPOKEN.split()
_PACKED_BYTES = "SELECT pg_total_relation_size('packed_events')"
_ROWS_LEFT = "SELECT coalesce(sum(pg_column_size(e.*)), 0) FROM run_events e WHERE run_id = ANY($1)"


async def packed(
    pool: Pool, driver: asyncpg.Connection, replica_id: UUID, chance: random.Random
) -> tuple[float, float]:
    """Stores answers of 1,000 tokens, 1 to 3 to an event and the events 15 to 50 ms apart, and packs them.

    Returns what they take then, messages' text included, in units of that text, and the seconds to pack one. What they
    take are the bytes by which tables and indexes grow, once they have the first pages of each; the text counts as it
    is, not as the database compresses it.
    """
    log, user = PostgresRunLog(pool), await _user(pool)
    for count in (WARM_UP_ANSWERS, ANSWERS):
        answers = [await _answer(pool, log, replica_id, user, chance) for _ in range(count)]
        before, began = await driver.fetchval(_PACKED_BYTES), time.perf_counter()
        while await log.pack(datetime.now(UTC) - AGO / 2, count):
            pass
    seconds, rows = time.perf_counter() - began, await driver.fetchval(_PACKED_BYTES) - before
    rows += await driver.fetchval(_ROWS_LEFT, [run_id for run_id, _ in answers])
    text = sum(len(text.encode()) for _, text in answers)
    return (rows + text) / text, seconds / ANSWERS


async def _user(pool: Pool) -> User:
    user = User(uuid7(), uuid7(), f"{uuid7()}@bench.example", "Measured", Role.MEMBER, datetime.now(UTC))
    async with PostgresUnitOfWorkFactory(pool)() as work:
        await work.users.add(user, "none")
        await work.commit()
    return user


async def _answer(
    pool: Pool, log: PostgresRunLog, replica_id: UUID, user: User, chance: random.Random
) -> tuple[UUID, str]:
    """Stores a question and its ended answer; returns the run and the answer's text."""
    run, question, answer, conversation = _begun(user, replica_id, datetime.now(UTC).replace(microsecond=0) - AGO)
    start = Started(conversation.conversation_id, question.message_id, answer.message_id, run.model)
    started = RunEvent(run.workspace_id, run.run_id, 1, 1, run.create_time, start)
    async with PostgresUnitOfWorkFactory(pool)() as work:
        await work.conversations.add(conversation)
        await work.messages.add(run.workspace_id, question, answer)
        await work.runs.add(run, started)
        await work.commit()
    events = _events(run, chance)
    text = "".join(event.body.text for event in events if isinstance(event.body, TextDelta))
    await log.append(replica_id, events)
    ended = end(
        replace(run, last_seq=events[-1].seq),
        replace(answer, content=text),
        FinishReason.STOP,
        usage=Usage(100, TOKENS),
        tail=[],
        now=events[-1].create_time,
    )
    await log.finish(replica_id, ended)
    return run.run_id, text


def _events(run: Run, chance: random.Random) -> Sequence[RunEvent]:
    events: list[RunEvent] = []
    now, left = run.create_time, TOKENS
    while left:
        tokens = min(left, chance.randint(1, 3))
        left -= tokens
        now += timedelta(milliseconds=chance.randint(15, 50))
        text = "".join(f" {word}" for word in chance.choices(WORDS, k=tokens))
        events.append(RunEvent(run.workspace_id, run.run_id, len(events) + 2, 1, now, TextDelta(text)))
    return events


def _begun(user: User, replica_id: UUID, now: datetime) -> tuple[Run, Message, Message, Conversation]:
    place = user.workspace_id, user.user_id
    conversation = Conversation(uuid7(), *place, "Measured", {}, None, now, now)
    asked = Message(uuid7(), conversation.conversation_id, None, 1, MessageRole.USER, "hi", MessageStatus.COMPLETE, now)
    run_id, answer_id = uuid7(), uuid7()
    answer = replace(
        asked,
        message_id=answer_id,
        parent_message_id=asked.message_id,
        depth=2,
        role=MessageRole.ASSISTANT,
        content="",
        status=MessageStatus.STREAMING,
        model="bench",
        run_id=run_id,
    )
    run = Run(
        run_id,
        *place,
        conversation.conversation_id,
        answer_id,
        "bench",
        SendOptions(),
        create_time=now,
        owner=replica_id,
    )
    return run, asked, answer, conversation
