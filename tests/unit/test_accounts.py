"""Registering, signing in and out, and staying signed in."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from application.accounts import Accounts
from application.authentication import Authenticator, EndedSessions
from domain.errors import (
    CredentialsInvalid,
    EmailTaken,
    InvalidField,
    PasswordHashingBusy,
    RefreshTokenInvalid,
    RegistrationClosed,
    SessionEnded,
    TokenInvalid,
    UserNotFound,
)
from domain.identity import Caller, Registration, Role, Session, Tokens, User
from tests.builders import a_caller
from tests.fakes.clock import FakeClock
from tests.fakes.database import FakeDatabase
from tests.fakes.password_hasher import FakePasswordHasher
from tests.fakes.token_signer import FakeTokenSigner
from tests.fakes.unit_of_work import FakeUnitOfWorkFactory

EMAIL = "ada@example.org"
PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "an altogether other one"


class Hasher(FakePasswordHasher):
    """Lets something happen right after a password was checked."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def verify(self, password: str, hashed: str | None) -> bool:
        right = await super().verify(password, hashed)
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            await happen()
        return right


class Service:
    """The use cases on fakes, and a look at what they left behind."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.database = FakeDatabase(clock=self.clock)
        self.unit_of_work = FakeUnitOfWorkFactory(self.database)
        self.hasher = Hasher()
        self.signer = FakeTokenSigner(self.clock)
        self.ended = EndedSessions(self.unit_of_work, self.clock, timedelta(minutes=10))
        self.authenticator = Authenticator(self.signer, self.clock, self.ended)
        self.accounts = Accounts(
            unit_of_work=self.unit_of_work,
            hasher=self.hasher,
            signer=self.signer,
            clock=self.clock,
            ended=self.ended,
            registration_open=True,
            access_lifetime=timedelta(minutes=10),
            refresh_lifetime=timedelta(days=30),
        )

    async def register(self, email: str = EMAIL) -> User:
        return await self.accounts.register(Registration(email=email, password=PASSWORD, display_name="Ada"))

    async def login(self) -> tuple[Tokens, Caller]:
        """Signs Ada in."""
        tokens, _ = await self.accounts.login(EMAIL, PASSWORD)
        await self.ended.poll()
        return tokens, self.authenticator.caller(tokens.access_token)

    def session(self, caller: Caller) -> Session:
        return self.database.tables.sessions[caller.session_id]

    def is_open(self, caller: Caller) -> bool:
        return self.session(caller).end_time is None


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def ada(service: Service) -> User:
    return await service.register()


class TestRegister:
    async def test_a_new_user_is_admin_of_a_workspace_of_its_own(self, service: Service) -> None:
        ada, bob = await service.register(), await service.register("bob@example.org")
        assert (ada.role, ada.workspace_id != bob.workspace_id) == (Role.ADMIN, True)

    async def test_a_new_user_is_who_it_said(self, service: Service) -> None:
        ada = await service.register()
        assert (ada.email, ada.display_name, ada.create_time) == (EMAIL, "Ada", service.clock.now())

    async def test_a_new_user_can_sign_in(self, service: Service) -> None:
        ada = await service.register()
        assert (await service.accounts.login(EMAIL, PASSWORD))[1] == ada

    async def test_an_email_is_taken_once_in_the_deployment(self, service: Service, ada: User) -> None:
        with pytest.raises(EmailTaken):
            await service.register("ADA@example.org")

    async def test_closed_registration_refuses_without_any_work(self, service: Service) -> None:
        closed = replace(service.accounts, registration_open=False)
        with pytest.raises(RegistrationClosed):
            await closed.register(Registration(email=EMAIL, password=PASSWORD, display_name=""))
        assert service.hasher.work == 0

    async def test_nobody_is_registered_while_the_hasher_is_busy(self, service: Service) -> None:
        service.hasher.busy = True
        with pytest.raises(PasswordHashingBusy):
            await service.register()
        service.hasher.busy = False
        assert await service.register()


class TestEnsureOperator:
    async def test_the_first_start_makes_an_operator_with_a_workspace_of_its_own(self, service: Service) -> None:
        assert await service.accounts.ensure_operator("operator@localhost", PASSWORD)
        _, operator = await service.accounts.login("operator@localhost", PASSWORD)
        assert operator.role is Role.OPERATOR

    async def test_later_starts_make_none_and_hash_nothing(self, service: Service) -> None:
        await service.accounts.ensure_operator("operator@localhost", PASSWORD)
        assert not await service.accounts.ensure_operator("Operator@localhost", NEW_PASSWORD)
        assert service.hasher.work == 1

    async def test_later_starts_leave_the_password_as_it_is(self, service: Service) -> None:
        await service.accounts.ensure_operator("operator@localhost", PASSWORD)
        await service.accounts.ensure_operator("operator@localhost", NEW_PASSWORD)
        assert await service.accounts.login("operator@localhost", PASSWORD)

    async def test_it_is_made_whether_registration_is_open_or_not(self, service: Service) -> None:
        assert await replace(service.accounts, registration_open=False).ensure_operator(EMAIL, PASSWORD)

    async def test_of_two_replicas_that_start_one_makes_it(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rival = FakePasswordHasher()

        async def hash_while_the_other_finishes(password: str) -> str:
            await replace(service.accounts, hasher=rival).ensure_operator(EMAIL, PASSWORD)
            return await rival.hash(password)

        monkeypatch.setattr(service.hasher, "hash", hash_while_the_other_finishes)
        assert not await service.accounts.ensure_operator(EMAIL, PASSWORD)

    async def test_a_password_that_is_none_is_refused(self, service: Service) -> None:
        with pytest.raises(InvalidField, match="password"):
            await service.accounts.ensure_operator(EMAIL, "short")


class TestLogin:
    async def test_the_access_token_speaks_for_the_user(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        assert (caller.user_id, caller.workspace_id, caller.role) == (ada.user_id, ada.workspace_id, ada.role)

    async def test_case_and_composition_of_the_email_do_not_matter(self, service: Service, ada: User) -> None:
        assert (await service.accounts.login("ADA@example.org", PASSWORD))[1] == ada

    async def test_the_tokens_tell_when_they_expire(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        now = service.clock.now()
        assert tokens.access_expire_time == (now + timedelta(minutes=10)).replace(microsecond=0)
        assert tokens.refresh_expire_time == now + timedelta(days=30)

    async def test_the_access_token_dies_when_it_was_said_to(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        assert service.signer.verify_access_token(tokens.access_token)[1] == tokens.access_expire_time

    async def test_each_login_is_a_session_with_a_salt_of_its_own(self, service: Service, ada: User) -> None:
        sessions = [service.session((await service.login())[1]) for _ in range(2)]
        assert [len(salt) for salt in {session.salt for session in sessions}] == [32, 32]

    @pytest.mark.parametrize(
        ("email", "password"),
        [
            pytest.param("bob@example.org", PASSWORD, id="unknown e-mail"),
            pytest.param(EMAIL, "a wrong password", id="wrong password"),
            pytest.param(EMAIL, "", id="no password"),
            pytest.param(EMAIL, "short", id="short password"),
            pytest.param(EMAIL, "x" * 129, id="long password"),
            pytest.param(EMAIL, PASSWORD + "x" * 1000, id="long password that begins with the right one"),
            pytest.param(EMAIL, PASSWORD + "\0", id="right password and a NUL"),
            pytest.param(EMAIL, "\ud800" * 12, id="lone surrogates"),
            pytest.param("", PASSWORD, id="no e-mail"),
            pytest.param("ada", PASSWORD, id="malformed e-mail"),
            pytest.param(EMAIL + "\0", PASSWORD, id="e-mail with a NUL"),
            pytest.param("\ud800@example.org", PASSWORD, id="e-mail with a lone surrogate"),
            pytest.param("a" * 300 + "@example.org", PASSWORD, id="long e-mail"),
            pytest.param("ada", "short", id="both malformed"),
        ],
    )
    async def test_every_failure_is_one_error_and_one_hash_of_work(
        self, service: Service, ada: User, email: str, password: str
    ) -> None:
        before = service.hasher.work
        with pytest.raises(CredentialsInvalid):
            await service.accounts.login(email, password)
        assert service.hasher.work == before + 1

    async def test_a_busy_hasher_is_said_to_be_busy(self, service: Service, ada: User) -> None:
        service.hasher.busy = True
        with pytest.raises(PasswordHashingBusy):
            await service.accounts.login(EMAIL, PASSWORD)

    async def test_a_password_that_is_replaced_while_it_is_checked_begins_no_session(
        self, service: Service, ada: User
    ) -> None:
        _, caller = await service.login()
        service.hasher.meanwhile = lambda: service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        with pytest.raises(CredentialsInvalid):
            await service.accounts.login(EMAIL, PASSWORD)


class TestRefresh:
    async def test_the_newest_token_gives_new_tokens_of_the_same_session(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        refreshed = await service.accounts.refresh(tokens.refresh_token)
        assert refreshed.refresh_token != tokens.refresh_token
        assert service.authenticator.caller(refreshed.access_token) == caller

    async def test_each_refresh_moves_the_expiry_on(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        service.clock.advance(days=29)
        refreshed = await service.accounts.refresh(tokens.refresh_token)
        assert refreshed.refresh_expire_time == service.clock.now() + timedelta(days=30)

    async def test_a_chain_of_refreshes_does_not_end(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        for _ in range(5):
            service.clock.advance(days=20)
            tokens = await service.accounts.refresh(tokens.refresh_token)
        assert await service.accounts.refresh(tokens.refresh_token)

    async def test_a_refresh_whose_reply_was_lost_can_be_repeated(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        lost = await service.accounts.refresh(tokens.refresh_token)
        service.clock.advance(seconds=10)
        assert (await service.accounts.refresh(tokens.refresh_token)).refresh_token == lost.refresh_token

    async def test_a_spent_token_is_refused(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        await service.accounts.refresh(tokens.refresh_token)
        service.clock.advance(seconds=11)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token)

    async def test_a_spent_token_ends_the_session_for_good(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        await service.accounts.refresh(tokens.refresh_token)
        service.clock.advance(seconds=11)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token)
        assert not service.is_open(caller)

    async def test_a_spent_token_ends_the_thief_s_tokens_at_once(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        stolen = await service.accounts.refresh(tokens.refresh_token)
        service.clock.advance(seconds=11)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token)
        with pytest.raises(SessionEnded):
            service.authenticator.caller(stolen.access_token)
        with pytest.raises(SessionEnded):
            await service.accounts.refresh(stolen.refresh_token)

    async def test_a_forged_proof_is_refused_and_changes_nothing(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        before = service.session(caller)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token[:-1] + "!")
        assert service.session(caller) == before

    async def test_a_spent_generation_with_a_forged_proof_ends_nothing(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        newest = await service.accounts.refresh(tokens.refresh_token)
        service.clock.advance(hours=1)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token[:-1] + "!")
        assert service.is_open(caller)
        assert await service.accounts.refresh(newest.refresh_token)

    @pytest.mark.parametrize("garbage", ["", "garbage", "..", "\0", f"{uuid4()}.1.proof", "x" * 100_000])
    async def test_what_is_no_refresh_token_of_ours_is_refused(self, service: Service, garbage: str) -> None:
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(garbage)

    async def test_an_access_token_is_no_refresh_token(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.access_token)

    async def test_an_expired_token_is_refused(self, service: Service, ada: User) -> None:
        tokens, _ = await service.login()
        service.clock.advance(days=30)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token)

    async def test_a_session_that_was_ended_says_so(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        await service.accounts.logout(caller)
        with pytest.raises(SessionEnded):
            await service.accounts.refresh(tokens.refresh_token)

    async def test_an_ended_session_stays_unknown_to_who_cannot_prove_it(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        await service.accounts.logout(caller)
        with pytest.raises(RefreshTokenInvalid):
            await service.accounts.refresh(tokens.refresh_token[:-1] + "!")

    async def test_no_access_token_outlives_its_session(self, service: Service, ada: User) -> None:
        service.accounts = replace(service.accounts, refresh_lifetime=timedelta(minutes=3))
        tokens, _ = await service.login()
        assert tokens.access_expire_time <= tokens.refresh_expire_time


class TestLogout:
    async def test_the_session_ends(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        await service.accounts.logout(caller)
        assert service.session(caller).end_time == service.clock.now()

    async def test_its_access_token_is_refused_at_once(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        await service.accounts.logout(caller)
        with pytest.raises(SessionEnded):
            service.authenticator.caller(tokens.access_token)

    async def test_the_user_s_other_sessions_go_on(self, service: Service, ada: User) -> None:
        (_, caller), (_, other) = await service.login(), await service.login()
        await service.accounts.logout(caller)
        assert service.is_open(other)

    async def test_a_second_logout_leaves_the_first_one_s_time(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        await service.accounts.logout(caller)
        ended = service.session(caller)
        service.clock.advance(seconds=1)
        await service.accounts.logout(caller)
        assert service.session(caller) == ended


class TestCurrentUser:
    async def test_it_is_the_user_who_calls(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        assert await service.accounts.current_user(caller) == ada

    async def test_a_user_who_is_gone_is_not_found(self, service: Service) -> None:
        with pytest.raises(UserNotFound):
            await service.accounts.current_user(a_caller())


class TestChangePassword:
    async def test_the_new_password_signs_in_and_the_old_one_does_not(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        await service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        with pytest.raises(CredentialsInvalid):
            await service.accounts.login(EMAIL, PASSWORD)
        assert (await service.accounts.login(EMAIL, NEW_PASSWORD))[1] == ada

    async def test_this_session_goes_on(self, service: Service, ada: User) -> None:
        tokens, caller = await service.login()
        await service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        assert service.authenticator.caller(tokens.access_token) == caller
        assert await service.accounts.refresh(tokens.refresh_token)

    async def test_the_other_sessions_end_at_once(self, service: Service, ada: User) -> None:
        (_, caller), (other_tokens, other) = await service.login(), await service.login()
        await service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        with pytest.raises(SessionEnded):
            service.authenticator.caller(other_tokens.access_token)
        assert not service.is_open(other)

    async def test_other_users_sessions_go_on(self, service: Service, ada: User) -> None:
        bob = await service.register("bob@example.org")
        tokens, _ = await service.accounts.login("bob@example.org", PASSWORD)
        _, caller = await service.login()
        await service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        assert service.authenticator.caller(tokens.access_token).user_id == bob.user_id

    @pytest.mark.parametrize("current", ["a wrong password", "", "x" * 1000, "\0" * 12])
    async def test_a_wrong_current_password_changes_nothing(self, service: Service, ada: User, current: str) -> None:
        _, caller = await service.login()
        with pytest.raises(CredentialsInvalid):
            await service.accounts.change_password(caller, current, NEW_PASSWORD)
        assert await service.accounts.login(EMAIL, PASSWORD)

    async def test_a_new_password_that_is_none_is_refused_by_name(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        with pytest.raises(InvalidField) as refused:
            await service.accounts.change_password(caller, PASSWORD, "short")
        assert refused.value.field == "new_password"

    async def test_of_two_changes_at_once_one_wins(self, service: Service, ada: User) -> None:
        _, caller = await service.login()
        service.hasher.meanwhile = lambda: service.accounts.change_password(caller, PASSWORD, NEW_PASSWORD)
        with pytest.raises(CredentialsInvalid):
            await service.accounts.change_password(caller, PASSWORD, "yet another password")
        assert await service.accounts.login(EMAIL, NEW_PASSWORD)

    async def test_a_user_who_is_gone_has_no_right_password(self, service: Service) -> None:
        with pytest.raises(CredentialsInvalid):
            await service.accounts.change_password(a_caller(), PASSWORD, NEW_PASSWORD)


async def test_an_access_token_alone_is_refused_when_it_has_expired(service: Service, ada: User) -> None:
    tokens, _ = await service.login()
    service.clock.advance(minutes=10)
    await service.ended.poll()
    with pytest.raises(TokenInvalid):
        service.authenticator.caller(tokens.access_token)
