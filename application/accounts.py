"""Use cases of AuthService: registering, signing in and out, and staying signed in."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from application.authentication import EndedSessions
from application.ports.clock import Clock
from application.ports.password_hasher import PasswordHasher
from application.ports.token_signer import TokenSigner
from application.ports.unit_of_work import UnitOfWork, UnitOfWorkFactory
from domain import identity
from domain.errors import (
    CredentialsInvalid,
    EmailTaken,
    InvalidField,
    RefreshTokenInvalid,
    RegistrationClosed,
    SessionEnded,
)
from domain.identity import Caller, Registration, Role, Session, Tokens, User

SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Accounts:
    """A user's own account.

    - Passwords are hashed before a transaction begins: a hash takes a quarter of a second of a thread.
    - Each failure to sign in is one error and one hash of work, whatever its cause.
    - A session that ends here is refused here at once, by `ended`.
    """

    unit_of_work: UnitOfWorkFactory
    hasher: PasswordHasher
    signer: TokenSigner
    clock: Clock
    ended: EndedSessions
    registration_open: bool
    access_lifetime: timedelta
    refresh_lifetime: timedelta

    async def register(self, registration: Registration) -> User:
        """Returns the new user, ADMIN of a workspace of its own. Raises RegistrationClosed or EmailTaken."""
        if not self.registration_open:
            raise RegistrationClosed
        return await self._add(registration, Role.ADMIN)

    async def ensure_operator(self, email: str, password: str) -> bool:
        """Makes the deployment's OPERATOR unless the e-mail is in use; says whether it was made now."""
        registration = Registration(email=email, password=password, display_name="Operator")
        if await self._credentials(registration.email) is not None:
            return False
        try:
            await self._add(registration, Role.OPERATOR)
        except EmailTaken:  # another replica that starts was quicker
            return False
        return True

    async def login(self, email: str, password: str) -> tuple[Tokens, User]:
        """Begins a session. Raises CredentialsInvalid, whatever was wrong, or PasswordHashingBusy."""
        user, hashed = await self._proven(email, password)
        now = self.clock.now()
        session = self._new_session(user, now)
        async with self.unit_of_work() as work:
            await _check_unchanged(work, user.user_id, hashed)
            await work.sessions.add(session)
            await work.commit()
        return self._tokens(session, user, now), user

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchanges the token for its successor.

        Raises RefreshTokenInvalid, after ending the session if the token was spent, or SessionEnded.
        """
        stated = self.signer.refresh_session(refresh_token)
        if stated is None:
            raise RefreshTokenInvalid
        session_id, generation = stated
        now = self.clock.now()
        async with self.unit_of_work() as work:
            session = await self._locked(work, session_id, refresh_token, now)
            successor = session.refreshed(generation, now, self.refresh_lifetime)
            if successor is None:
                await self._end(work, session_id, now)
                raise RefreshTokenInvalid
            user = await work.users.get(session.user_id)
            await work.sessions.save(successor)
            await work.commit()
        return self._tokens(successor, user, now)

    async def logout(self, caller: Caller) -> None:
        """Ends the caller's session."""
        async with self.unit_of_work() as work:
            await self._end(work, caller.session_id, self.clock.now())

    async def current_user(self, caller: Caller) -> User:
        """Returns the user who calls."""
        async with self.unit_of_work.reading() as work:
            return await work.users.get(caller.user_id)

    async def change_password(self, caller: Caller, current: str, new: str) -> None:
        """Replaces the password and ends the user's other sessions.

        Raises InvalidField for a new password that is none, CredentialsInvalid if the current one is wrong.
        """
        normal = identity.password(new, "new_password")
        async with self.unit_of_work.reading() as work:
            hashed = await work.users.password_hash(caller.user_id)
        await self._check_password(current, hashed)
        new_hash = await self.hasher.hash(normal)
        async with self.unit_of_work() as work:
            await _check_unchanged(work, caller.user_id, hashed)
            await work.users.set_password_hash(caller.user_id, new_hash)
            others = await work.sessions.end_others(caller.user_id, kept=caller.session_id, now=self.clock.now())
            await work.commit()
            self.ended.add(others)

    async def _add(self, registration: Registration, role: Role) -> User:
        hashed = await self.hasher.hash(registration.password)
        user = User(
            user_id=self.clock.new_id(),
            workspace_id=self.clock.new_id(),
            email=registration.email,
            display_name=registration.display_name,
            role=role,
            create_time=self.clock.now(),
        )
        async with self.unit_of_work() as work:
            await work.users.add(user, hashed)
            await work.commit()
        return user

    async def _proven(self, email: str, password: str) -> tuple[User, str]:
        """Returns the user whom both name, and the hash that proved it. Raises CredentialsInvalid."""
        try:
            found = await self._credentials(identity.email(email))
        except InvalidField:
            found = None
        user, hashed = found or (None, None)
        await self._check_password(password, hashed)
        if user is None or hashed is None:
            raise CredentialsInvalid
        return user, hashed

    async def _credentials(self, email: str) -> tuple[User, str] | None:
        async with self.unit_of_work.reading() as work:
            return await work.users.credentials(email)

    async def _check_password(self, password: str, hashed: str | None) -> None:
        """Refuses a wrong password with CredentialsInvalid, at the cost of one hash in every case."""
        try:
            normal = identity.password(password)
        except InvalidField:  # nobody has such a password
            normal, hashed = "", None
        if not await self.hasher.verify(normal, hashed):
            raise CredentialsInvalid

    async def _locked(self, work: UnitOfWork, session_id: UUID, refresh_token: str, now: datetime) -> Session:
        """Returns the open session that the token proves, locked."""
        session = await work.sessions.lock(session_id)
        if session is None or not self.signer.proves(refresh_token, session):
            raise RefreshTokenInvalid
        if session.end_time is not None:
            raise SessionEnded
        if not session.is_open(now):
            raise RefreshTokenInvalid
        return session

    async def _end(self, work: UnitOfWork, session_id: UUID, now: datetime) -> None:
        """Ends the session for good, whatever is raised next in the block."""
        await work.sessions.end(session_id, now)
        await work.commit()
        self.ended.add([session_id])

    def _new_session(self, user: User, now: datetime) -> Session:
        return Session(
            session_id=self.clock.new_id(),
            workspace_id=user.workspace_id,
            user_id=user.user_id,
            generation=1,
            salt=secrets.token_bytes(SALT_BYTES),
            rotate_time=now,
            expire_time=now + self.refresh_lifetime,
        )

    def _tokens(self, session: Session, user: User, now: datetime) -> Tokens:
        caller = Caller(session.workspace_id, session.user_id, session.session_id, user.role)
        # A JWT counts whole seconds, and no access token outlives its session.
        expire_time = min(now + self.access_lifetime, session.expire_time).replace(microsecond=0)
        return Tokens(
            access_token=self.signer.access_token(caller, now, expire_time),
            access_expire_time=expire_time,
            refresh_token=self.signer.refresh_token(session),
            refresh_expire_time=session.expire_time,
        )


async def _check_unchanged(work: UnitOfWork, user_id: UUID, hashed: str | None) -> None:
    """Refuses, with CredentialsInvalid, a password that was replaced while its hash was being checked."""
    if await work.users.password_hash(user_id) != hashed:
        raise CredentialsInvalid
