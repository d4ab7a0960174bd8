"""Who calls, and how soon a session that ended is refused."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from application.authentication import Authenticator, EndedSessions
from domain.errors import DatabaseUnavailable, SessionEnded, TokenInvalid
from domain.identity import Caller
from tests.builders import a_caller, a_session
from tests.fakes.clock import FakeClock
from tests.fakes.database import FakeDatabase
from tests.fakes.token_signer import FakeTokenSigner
from tests.fakes.unit_of_work import FakeUnitOfWorkFactory

LIFETIME = timedelta(minutes=10)


class Replica:
    """One process with the sessions that it knows to have ended."""

    def __init__(self, database: FakeDatabase, clock: FakeClock, *, capacity: int = 10_000) -> None:
        self.clock = clock
        self.signer = FakeTokenSigner(clock)
        self.unit_of_work = FakeUnitOfWorkFactory(database)
        self.ended = EndedSessions(self.unit_of_work, clock, LIFETIME)
        self.authenticator = Authenticator(self.signer, clock, self.ended, capacity)

    def token(self, caller: Caller | None = None, lifetime: timedelta = LIFETIME) -> str:
        now = self.clock.now()
        return self.signer.access_token(caller or a_caller(), now, now + lifetime)

    def accepts(self, token: str) -> bool:
        try:
            return bool(self.authenticator.caller(token))
        except SessionEnded:
            return False


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
async def replica(database: FakeDatabase, clock: FakeClock) -> Replica:
    replica = Replica(database, clock)
    await replica.ended.poll()
    return replica


async def end_elsewhere(replica: Replica, caller: Caller, at: datetime) -> None:
    """Ends a session the way another replica does: in the database alone."""
    async with replica.unit_of_work() as work:
        await work.sessions.add(a_session(session_id=caller.session_id))
        await work.sessions.end(caller.session_id, at)
        await work.commit()


def test_a_token_gives_its_caller(replica: Replica) -> None:
    caller = a_caller()
    assert replica.authenticator.caller(replica.token(caller)) == caller


def test_what_is_no_token_is_refused(replica: Replica) -> None:
    with pytest.raises(TokenInvalid):
        replica.authenticator.caller("no token")


def test_a_token_is_looked_into_once(replica: Replica) -> None:
    token = replica.token()
    for _ in range(3):
        replica.authenticator.caller(token)
    assert replica.signer.verifications == 1


def test_a_token_that_is_remembered_still_expires(replica: Replica) -> None:
    token = replica.token(lifetime=timedelta(seconds=2))
    replica.authenticator.caller(token)
    replica.clock.advance(seconds=2)
    with pytest.raises(TokenInvalid):
        replica.authenticator.caller(token)


def test_an_expired_token_is_forgotten(replica: Replica) -> None:
    token = replica.token(lifetime=timedelta(seconds=2))
    replica.authenticator.caller(token)
    replica.clock.advance(seconds=2)
    with pytest.raises(TokenInvalid):
        replica.authenticator.caller(token)
    assert token not in replica.authenticator._verified


def test_a_refusal_is_not_remembered(replica: Replica) -> None:
    with pytest.raises(TokenInvalid):
        replica.authenticator.caller("no token")
    assert not replica.authenticator._verified


async def test_the_token_that_was_not_used_longest_is_forgotten_first(database: FakeDatabase, clock: FakeClock) -> None:
    replica = Replica(database, clock, capacity=2)
    await replica.ended.poll()
    first, second, third = [replica.token() for _ in range(3)]
    for token in (first, second, first, third):
        replica.authenticator.caller(token)
    assert list(replica.authenticator._verified) == [first, third]


def test_a_session_that_ends_on_this_replica_is_refused_at_once(replica: Replica) -> None:
    caller = a_caller()
    token = replica.token(caller)
    replica.authenticator.caller(token)
    replica.ended.add([caller.session_id])
    with pytest.raises(SessionEnded):
        replica.authenticator.caller(token)


def test_other_sessions_go_on(replica: Replica) -> None:
    replica.ended.add([uuid4()])
    assert replica.accepts(replica.token())


async def test_a_session_that_ends_elsewhere_is_refused_after_the_next_reading(replica: Replica) -> None:
    caller = a_caller()
    token = replica.token(caller)
    await end_elsewhere(replica, caller, replica.clock.now())
    before = replica.accepts(token)
    await replica.ended.poll()
    assert (before, replica.accepts(token)) == (True, False)


async def test_a_replica_that_starts_learns_of_sessions_whose_tokens_may_still_live(replica: Replica) -> None:
    caller = a_caller()
    token = replica.token(caller)
    await end_elsewhere(replica, caller, replica.clock.now() - LIFETIME - timedelta(seconds=59))
    await replica.ended.poll()
    assert not replica.accepts(token)


async def test_a_reading_does_not_bring_back_a_session_that_ended_here_in_the_meantime(replica: Replica) -> None:
    caller = a_caller()
    replica.ended.add([caller.session_id])
    await replica.ended.poll()
    assert not replica.accepts(replica.token(caller))


async def test_an_ended_session_is_remembered_as_long_as_its_tokens_can_live(replica: Replica) -> None:
    session_id: UUID = uuid4()
    replica.ended.add([session_id])
    replica.clock.advance(minutes=11)
    await replica.ended.poll()
    remembered = session_id in replica.ended
    replica.clock.advance(seconds=1)
    await replica.ended.poll()
    assert (remembered, session_id in replica.ended) == (True, False)


async def test_a_replica_that_has_not_read_yet_accepts_nobody(database: FakeDatabase, clock: FakeClock) -> None:
    replica = Replica(database, clock)
    with pytest.raises(DatabaseUnavailable):
        replica.authenticator.caller(replica.token())


async def test_a_replica_that_could_not_read_for_five_seconds_accepts_nobody(replica: Replica) -> None:
    token = replica.token()
    replica.unit_of_work.unavailable = 1
    replica.clock.advance(seconds=5)
    accepted = replica.accepts(token)
    replica.clock.advance(milliseconds=1)
    with pytest.raises(DatabaseUnavailable):
        await replica.ended.poll()
    with pytest.raises(DatabaseUnavailable):
        replica.authenticator.caller(token)
    assert accepted


async def test_a_replica_that_reads_again_accepts_again(replica: Replica) -> None:
    replica.clock.advance(minutes=1)
    await replica.ended.poll()
    assert replica.accepts(replica.token())


def test_a_clock_that_was_set_back_does_not_hide_that_readings_have_stopped(replica: Replica) -> None:
    token = replica.token()
    replica.clock.advance(minutes=-2)
    with pytest.raises(DatabaseUnavailable):
        replica.authenticator.caller(token)


def test_a_stream_goes_on_after_its_token_expired(replica: Replica) -> None:
    caller = a_caller()
    replica.authenticator.caller(replica.token(caller, lifetime=timedelta(seconds=2)))
    replica.clock.advance(seconds=3)
    replica.authenticator.check(caller)


def test_a_stream_ends_with_its_session(replica: Replica) -> None:
    caller = a_caller()
    replica.ended.add([caller.session_id])
    with pytest.raises(SessionEnded):
        replica.authenticator.check(caller)


def test_a_stream_ends_when_the_replica_cannot_know_any_more(replica: Replica) -> None:
    replica.clock.advance(seconds=6)
    with pytest.raises(DatabaseUnavailable):
        replica.authenticator.check(a_caller())
