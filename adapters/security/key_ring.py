"""The deployment's keys: made once, shared by all replicas, sealed where they are kept."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
_UNSEALED = b"\x00"
_SEALED = b"\x01"

LoadOrCreate = Callable[[str, Callable[[], bytes]], Awaitable[bytes]]
"""Returns the stored value of a name, or stores what `make` returns; all who race get one value."""

Replace = Callable[[str, bytes], Awaitable[None]]
"""Stores another value under a name that exists."""


class KeyRingError(Exception):
    """The stored keys cannot be opened; the text names the variable to set and holds no secret."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What this deployment signs, peppers and seals with. Each key is 32 random bytes with one use."""

    signing: Ed25519PrivateKey = field(repr=False)
    password_pepper: bytes = field(repr=False)
    refresh: bytes = field(repr=False)
    cursor: bytes = field(repr=False)

    @property
    def kid(self) -> str:
        """The signing key's public name: the start of its public half's SHA-256."""
        digest = Hash(SHA256())
        digest.update(self.signing.public_key().public_bytes_raw())
        return urlsafe_b64encode(digest.finalize()[:12]).decode()


async def open_key_ring(secret: str | None, load_or_create: LoadOrCreate, replace: Replace) -> KeyRing:
    """Returns the deployment's keys, made at the first start of all.

    With a secret they are kept sealed, and those that were stored without one are sealed now. Raises KeyRingError
    where the stored keys need a secret that is missing or differs.
    """
    seal = _Seal(secret)

    async def key(name: str) -> bytes:
        stored = await load_or_create(name, lambda: seal.close(name, secrets.token_bytes(KEY_BYTES)))
        opened = seal.open(name, stored)
        if secret and stored.startswith(_UNSEALED):
            await replace(name, seal.close(name, opened))
        return opened

    return KeyRing(
        signing=Ed25519PrivateKey.from_private_bytes(await key("signing")),
        password_pepper=await key("password_pepper"),
        refresh=await key("refresh"),
        cursor=await key("cursor"),
    )


class _Seal:
    """AES-256-GCM under a key derived from CHATBACK_SECRET_KEY; a version byte leads, the key's name is bound in."""

    def __init__(self, secret: str | None) -> None:
        self._cipher = AESGCM(_derived(secret)) if secret else None

    def close(self, name: str, key: bytes) -> bytes:
        if self._cipher is None:
            return _UNSEALED + key
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _SEALED + nonce + self._cipher.encrypt(nonce, key, name.encode())

    def open(self, name: str, stored: bytes) -> bytes:
        version, body = stored[:1], stored[1:]
        if version == _UNSEALED and len(body) == KEY_BYTES:
            return body
        if version != _SEALED:
            raise KeyRingError(f"the deployment key {name!r} in the database is damaged or of a newer ChatBack")
        if self._cipher is None:
            raise KeyRingError("this deployment's keys are sealed: set CHATBACK_SECRET_KEY to what sealed them")
        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce and a tag
            raise KeyRingError("CHATBACK_SECRET_KEY is not the one that sealed this deployment's keys") from None


def _derived(secret: str) -> bytes:
    derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"chatback deployment keys 1")
    return derivation.derive(secret.encode(errors="surrogateescape"))
