"""Passwords under bcrypt, peppered, in threads of their own."""

import asyncio
import hmac
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

import bcrypt

from application.ports.password_hasher import PasswordHasher
from domain.errors import PasswordHashingBusy

THREADS = 2
WAITING = 20

T = TypeVar("T")


class BcryptPasswordHasher(PasswordHasher):
    """Hashes base64(HMAC-SHA256(pepper, NFC password)) with bcrypt.

    The HMAC makes any length fit bcrypt's 72 bytes, and a stolen table worthless without the pepper. Two threads
    hash, 20 calls wait; whoever comes then is told so, since a queue of hashes is the cheapest way to stop a service.
    """

    def __init__(self, pepper: bytes, *, cost: int) -> None:
        """Takes bcrypt's cost as a power of two, 4 to 31: each step doubles the work."""
        self._pepper = pepper
        self._cost = cost
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._places = BoundedSemaphore(THREADS + WAITING)

    async def hash(self, password: str) -> str:
        """Returns a salted hash. Raises PasswordHashingBusy when 20 wait already."""
        return await self._in_thread(lambda: self._hash(password, self._new_salt()).decode())

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Says whether the password made the hash; None or a hash that is none costs the same work and is False."""
        return await self._in_thread(lambda: self._verify(password, hashed))

    def close(self) -> None:
        """Drops what waits; a hash being made goes on in its thread, for a fraction of a second."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise PasswordHashingBusy
        future = self._threads.submit(work)
        # A cancelled caller frees its place only when its work has left the queue or the thread.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def _verify(self, password: str, hashed: str | None) -> bool:
        if hashed is not None:
            try:
                return hmac.compare_digest(self._hash(password, hashed.encode()), hashed.encode())
            except ValueError:  # bcrypt's word for a stored hash that is damaged, said before any work
                pass
        self._hash(password, self._new_salt())
        return False

    def _hash(self, password: str, salt: bytes) -> bytes:
        normal = unicodedata.normalize("NFC", password).encode(errors="surrogatepass")
        return bcrypt.hashpw(b64encode(hmac.digest(self._pepper, normal, "sha256")), salt)

    def _new_salt(self) -> bytes:
        return bcrypt.gensalt(self._cost)
