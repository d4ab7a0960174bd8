"""Who calls: verified access tokens, and the sessions that ended before their tokens did."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from application.ports.clock import Clock
from application.ports.token_signer import TokenSigner
from application.ports.unit_of_work import UnitOfWorkFactory
from domain.errors import DatabaseUnavailable, SessionEnded, TokenInvalid
from domain.identity import Caller

STALE_AFTER = timedelta(seconds=5)
"""How long a replica may go on without having read which sessions ended."""

CLOCK_SLACK = timedelta(minutes=1)
"""How far the clocks of replicas and database may be apart."""


@dataclass(slots=True)
class EndedSessions:
    """The sessions whose access tokens may still be alive although the session is not.

    - A session that ends on this replica is refused at once: whoever ends it calls `add`.
    - Sessions that end elsewhere come with `poll`, to be called every half second.
    - `on_end` is told once of each, so that what the session has open can be closed.
    - Each is kept as long as a token of it can live, so the set is bounded by how many sessions end in that time.
    """

    unit_of_work: UnitOfWorkFactory
    clock: Clock
    access_lifetime: timedelta
    on_end: Callable[[UUID], None] = lambda _: None
    _seen: dict[UUID, datetime] = field(default_factory=dict, init=False)
    _read_time: datetime | None = field(default=None, init=False)

    def __contains__(self, session_id: UUID) -> bool:
        return session_id in self._seen

    def add(self, session_ids: Iterable[UUID]) -> None:
        """Refuses these sessions from now on."""
        now = self.clock.now()
        for session_id in session_ids:
            if session_id not in self._seen:
                self._seen[session_id] = now
                self.on_end(session_id)

    async def poll(self) -> None:
        """Reads once which sessions ended lately. Raises DatabaseUnavailable."""
        begin = self.clock.now()
        oldest = begin - self.access_lifetime - CLOCK_SLACK
        async with self.unit_of_work.reading() as work:
            ended = await work.sessions.ended_since(oldest)
        self._forget_before(oldest)
        self.add(ended)
        self._read_time = begin

    def is_stale(self, now: datetime) -> bool:
        """Says whether the last reading is too old to go by; a clock that was set back counts as that too."""
        return self._read_time is None or abs(now - self._read_time) > STALE_AFTER

    def _forget_before(self, moment: datetime) -> None:
        for session_id in [session_id for session_id, seen in self._seen.items() if seen < moment]:
            del self._seen[session_id]


@dataclass(slots=True)
class Authenticator:
    """Turns access tokens into callers.

    - A token's signature is verified once; up to `capacity` verified tokens are remembered, each until it expires.
    - A token whose session has ended is refused, and every token is while this replica cannot know.
    """

    signer: TokenSigner
    clock: Clock
    ended: EndedSessions
    capacity: int = 10_000
    _verified: OrderedDict[str, tuple[Caller, datetime]] = field(default_factory=OrderedDict, init=False)

    def caller(self, token: str) -> Caller:
        """Returns on whose behalf the token speaks. Raises TokenInvalid, SessionEnded or DatabaseUnavailable."""
        now = self.clock.now()
        caller, expire_time = self._verified.get(token) or self._verify(token)
        if expire_time <= now:
            del self._verified[token]
            raise TokenInvalid
        self._verified.move_to_end(token)
        self._check(caller.session_id, now)
        return caller

    def check(self, caller: Caller) -> None:
        """Lets a stream go on past its token's life. Raises SessionEnded or DatabaseUnavailable."""
        self._check(caller.session_id, self.clock.now())

    def _check(self, session_id: UUID, now: datetime) -> None:
        if session_id in self.ended:
            raise SessionEnded
        if self.ended.is_stale(now):
            raise DatabaseUnavailable

    def _verify(self, token: str) -> tuple[Caller, datetime]:
        verified = self._verified[token] = self.signer.verify_access_token(token)
        if len(self._verified) > self.capacity:
            self._verified.popitem(last=False)
        return verified
