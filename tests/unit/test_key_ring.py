"""The deployment's keys, and how they are kept."""

from collections.abc import Callable

import pytest

from adapters.security.key_ring import KeyRing, KeyRingError, open_key_ring

SECRET = "a secret of at least 32 characters"


class KeyTable:
    """Stands for the database's table of keys."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def load_or_create(self, name: str, make: Callable[[], bytes]) -> bytes:
        return self.rows.setdefault(name, make())

    async def replace(self, name: str, value: bytes) -> None:
        self.rows[name] = value

    async def open(self, secret: str | None) -> KeyRing:
        return await open_key_ring(secret, self.load_or_create, self.replace)


def values(ring: KeyRing) -> list[bytes]:
    return [ring.signing.private_bytes_raw(), ring.password_pepper, ring.refresh, ring.cursor]


@pytest.fixture
def table() -> KeyTable:
    return KeyTable()


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_every_start_finds_the_same_keys(table: KeyTable, secret: str | None) -> None:
    assert values(await table.open(secret)) == values(await table.open(secret))


async def test_each_key_has_32_bytes_of_its_own(table: KeyTable) -> None:
    keys = values(await table.open(SECRET))
    assert [len(key) for key in set(keys)] == [32] * 4


async def test_two_deployments_have_nothing_in_common() -> None:
    first, second = [await KeyTable().open(SECRET) for _ in range(2)]
    assert not set(values(first)) & set(values(second))


async def test_the_signing_key_has_the_same_name_at_every_start(table: KeyTable) -> None:
    assert (await table.open(SECRET)).kid == (await table.open(SECRET)).kid


async def test_with_a_secret_no_key_lies_open_in_the_table(table: KeyTable) -> None:
    keys = values(await table.open(SECRET))
    assert not [key for key in keys if any(key in row for row in table.rows.values())]


async def test_a_secret_that_comes_later_opens_the_keys_that_were_made_without_one(table: KeyTable) -> None:
    assert values(await table.open(None)) == values(await table.open(SECRET))


async def test_a_secret_that_comes_later_seals_the_keys_that_were_made_without_one(table: KeyTable) -> None:
    keys = values(await table.open(None))
    await table.open(SECRET)
    assert not [key for key in keys if any(key in row for row in table.rows.values())]


async def test_keys_that_were_sealed_later_still_open(table: KeyTable) -> None:
    keys = values(await table.open(None))
    await table.open(SECRET)
    assert values(await table.open(SECRET)) == keys


@pytest.mark.parametrize("secret", [None, SECRET[:-1] + "z"], ids=["missing", "wrong"])
async def test_sealed_keys_and_no_or_another_secret_name_the_variable(table: KeyTable, secret: str | None) -> None:
    await table.open(SECRET)
    with pytest.raises(KeyRingError, match="CHATBACK_SECRET_KEY"):
        await table.open(secret)


async def test_a_refusal_holds_no_secret(table: KeyTable) -> None:
    await table.open(SECRET)
    with pytest.raises(KeyRingError) as refused:
        await table.open("another secret of 32 characters or more")
    assert "another secret" not in str(refused.value)


async def test_a_sealed_key_does_not_open_under_another_name(table: KeyTable) -> None:
    await table.open(SECRET)
    table.rows["cursor"] = table.rows["refresh"]
    with pytest.raises(KeyRingError):
        await table.open(SECRET)


@pytest.mark.parametrize("row", [b"", b"\x00short", b"\x01", b"\x01short", b"\x02" + b"x" * 60])
async def test_a_damaged_row_is_said_to_be_one(table: KeyTable, row: bytes) -> None:
    await table.open(SECRET)
    table.rows["cursor"] = row
    with pytest.raises(KeyRingError):
        await table.open(SECRET)


async def test_printing_the_ring_shows_no_key(table: KeyTable) -> None:
    assert repr(await table.open(SECRET)) == "KeyRing()"
