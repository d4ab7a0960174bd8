"""The memory that the fakes of the database's ports share."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.conversation import Conversation, Message
from domain.identity import Session, User
from domain.run import Run, RunEvent
from tests.fakes.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request_id stands for."""

    digest: bytes
    resource_id: UUID
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a replica may write; it is `retired` if it gave that up by itself."""

    join_time: datetime
    until: datetime
    fenced: bool = False
    retired: bool = False


@dataclass(slots=True)
class Tables:
    """Everything that is stored; tests may look into it and change it."""

    users: dict[UUID, User] = field(default_factory=dict)
    password_hashes: dict[UUID, str] = field(default_factory=dict)
    sessions: dict[UUID, Session] = field(default_factory=dict)
    revocations: dict[UUID, datetime] = field(default_factory=dict)
    conversations: dict[UUID, Conversation] = field(default_factory=dict)
    hidden: dict[UUID, datetime] = field(default_factory=dict)
    messages: dict[tuple[UUID, UUID], Message] = field(default_factory=dict)
    runs: dict[UUID, Run] = field(default_factory=dict)
    owned_since: dict[UUID, datetime] = field(default_factory=dict)
    packed: dict[UUID, bool] = field(default_factory=dict)
    events: dict[tuple[UUID, int], RunEvent] = field(default_factory=dict)
    requests: dict[tuple[UUID, str], Claim] = field(default_factory=dict)
    replicas: dict[UUID, Lease] = field(default_factory=dict)

    def copy(self) -> "Tables":
        """Returns tables with the same rows."""
        return Tables(*(dict(table) for table in self._all()))

    def apply(self, before: "Tables", after: "Tables") -> None:
        """Repeats here the changes that lead from one state to another."""
        for mine, old, new in zip(self._all(), before._all(), after._all(), strict=True):
            for key in old.keys() - new.keys():
                mine.pop(key, None)
            mine.update({key: row for key, row in new.items() if old.get(key) is not row})

    def last_seq(self, run_id: UUID) -> int:
        """Returns the newest seq of the run's log, 0 for an empty one."""
        return max((seq for run, seq in self.events if run == run_id), default=0)

    def _all(self) -> list[dict[Any, Any]]:
        return [getattr(self, name) for name in self.__slots__]


@dataclass(slots=True)
class FakeDatabase:
    """What all fakes of one test share. Transactions take turns; `clock` is the time of leases."""

    tables: Tables = field(default_factory=Tables)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    clock: FakeClock = field(default_factory=FakeClock)
