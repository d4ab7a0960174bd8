"""What every password hasher owes its callers, and what bcrypt's has to do besides."""

import asyncio
import threading
from collections.abc import Iterator

import bcrypt
import pytest

from adapters.security.password_hasher import THREADS, WAITING, BcryptPasswordHasher
from application.ports.password_hasher import PasswordHasher
from domain.errors import PasswordHashingBusy
from tests.fakes.password_hasher import FakePasswordHasher

PASSWORD = "correct horse battery staple"


class PasswordHasherContract:
    async def test_the_password_that_made_a_hash_is_recognised(self, hasher: PasswordHasher) -> None:
        assert await hasher.verify(PASSWORD, await hasher.hash(PASSWORD))

    async def test_another_password_is_not(self, hasher: PasswordHasher) -> None:
        assert not await hasher.verify(PASSWORD + "r", await hasher.hash(PASSWORD))

    async def test_two_hashes_of_one_password_differ(self, hasher: PasswordHasher) -> None:
        assert await hasher.hash(PASSWORD) != await hasher.hash(PASSWORD)

    async def test_without_a_hash_no_password_is_right(self, hasher: PasswordHasher) -> None:
        assert not await hasher.verify(PASSWORD, None)

    @pytest.mark.parametrize("damaged", ["", "garbage", "$2b$12$short", "$9z$04$" + "a" * 53])
    async def test_a_damaged_hash_is_a_wrong_password(self, hasher: PasswordHasher, damaged: str) -> None:
        assert not await hasher.verify(PASSWORD, damaged)

    async def test_passwords_that_differ_past_72_bytes_differ(self, hasher: PasswordHasher) -> None:
        assert not await hasher.verify("x" * 72 + "b", await hasher.hash("x" * 72 + "a"))

    async def test_passwords_that_differ_past_a_nul_differ(self, hasher: PasswordHasher) -> None:
        assert not await hasher.verify("before\0b", await hasher.hash("before\0a"))

    async def test_composed_and_decomposed_letters_are_one_password(self, hasher: PasswordHasher) -> None:
        assert await hasher.verify("cafe\u0301 au lait", await hasher.hash("caf\u00e9 au lait"))

    @pytest.mark.parametrize("text", ["", "\0", "\U0001f40e" * 128, "\ud800", "x" * 10_000])
    async def test_any_text_can_be_tried(self, hasher: PasswordHasher, text: str) -> None:
        assert not await hasher.verify(text, await hasher.hash(PASSWORD))


class TestFakePasswordHasher(PasswordHasherContract):
    @pytest.fixture
    def hasher(self) -> PasswordHasher:
        return FakePasswordHasher()


class SlowBcrypt:
    """Stands in for bcrypt's work: counts it, and holds it back while `gate` is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.salts: list[bytes] = []
        self._hashpw = bcrypt.hashpw
        monkeypatch.setattr(bcrypt, "hashpw", self._work)

    def _work(self, password: bytes, salt: bytes) -> bytes:
        self.gate.wait()
        hashed = self._hashpw(password, salt)
        self.salts.append(salt)
        return hashed


class TestBcryptPasswordHasher(PasswordHasherContract):
    @pytest.fixture
    def hasher(self) -> Iterator[BcryptPasswordHasher]:
        hasher = BcryptPasswordHasher(b"p" * 32, cost=4)
        yield hasher
        hasher.close()

    @pytest.fixture
    def slow_bcrypt(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowBcrypt]:
        slow = SlowBcrypt(monkeypatch)
        yield slow
        slow.gate.set()

    async def test_the_cost_is_the_one_that_was_set(self, hasher: BcryptPasswordHasher) -> None:
        assert (await hasher.hash(PASSWORD)).startswith("$2b$04$")

    async def test_another_pepper_recognises_nothing(self, hasher: BcryptPasswordHasher) -> None:
        other = BcryptPasswordHasher(b"q" * 32, cost=4)
        assert not await other.verify(PASSWORD, await hasher.hash(PASSWORD))
        other.close()

    @pytest.mark.parametrize("kind", ["right", "wrong", "none", "damaged"])
    async def test_every_check_costs_exactly_one_hash(
        self, hasher: BcryptPasswordHasher, slow_bcrypt: SlowBcrypt, kind: str
    ) -> None:
        hashed = await hasher.hash(PASSWORD)
        slow_bcrypt.salts.clear()
        stored = {"none": None, "damaged": "$2b$04$short"}.get(kind, hashed)
        await hasher.verify(PASSWORD if kind == "right" else "a wrong password", stored)
        assert [salt[:7] for salt in slow_bcrypt.salts] == [b"$2b$04$"]

    async def test_the_twenty_third_call_is_refused_while_two_work_and_twenty_wait(
        self, hasher: BcryptPasswordHasher, slow_bcrypt: SlowBcrypt
    ) -> None:
        slow_bcrypt.gate.clear()
        async with asyncio.TaskGroup() as calls:
            for _ in range(THREADS + WAITING):
                calls.create_task(hasher.hash(PASSWORD))
            await asyncio.sleep(0)
            with pytest.raises(PasswordHashingBusy):
                await hasher.hash(PASSWORD)
            slow_bcrypt.gate.set()

    async def test_there_is_room_again_once_the_work_is_done(
        self, hasher: BcryptPasswordHasher, slow_bcrypt: SlowBcrypt
    ) -> None:
        for _ in range(2):
            async with asyncio.TaskGroup() as calls:
                for _ in range(THREADS + WAITING):
                    calls.create_task(hasher.hash(PASSWORD))
        assert len(slow_bcrypt.salts) == 2 * (THREADS + WAITING)

    async def test_a_caller_who_gives_up_waiting_leaves_its_place_to_another(
        self, hasher: BcryptPasswordHasher, slow_bcrypt: SlowBcrypt
    ) -> None:
        slow_bcrypt.gate.clear()
        calls = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(THREADS + WAITING)]
        await asyncio.sleep(0)
        calls[-1].cancel()
        await asyncio.wait([calls[-1]])
        calls[-1] = asyncio.create_task(hasher.hash(PASSWORD))
        await asyncio.sleep(0)
        slow_bcrypt.gate.set()
        assert all(hashed.startswith("$2b$") for hashed in await asyncio.gather(*calls))

    async def test_a_caller_who_gives_up_keeps_the_place_of_work_that_has_begun(
        self, hasher: BcryptPasswordHasher, slow_bcrypt: SlowBcrypt
    ) -> None:
        slow_bcrypt.gate.clear()
        calls = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(THREADS + WAITING)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        with pytest.raises(PasswordHashingBusy):
            await hasher.hash(PASSWORD)
        slow_bcrypt.gate.set()
        await asyncio.gather(*calls[1:])
