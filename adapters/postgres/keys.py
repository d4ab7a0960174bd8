"""Secrets that all replicas of a deployment share, as opaque bytes: whoever asks seals and opens them."""

from collections.abc import Callable

from adapters.postgres.pool import Pool


async def load_or_create(pool: Pool, name: str, make: Callable[[], bytes]) -> bytes:
    """Returns the value stored under the name, after storing `make()` if there was none; rivals get the same value.

    Raises DatabaseUnavailable.
    """
    async with pool.connection() as connection:
        stored: bytes | None = await connection.value("SELECT value FROM deployment_keys WHERE name = $1", name)
        if stored is not None:
            return stored
        await connection.run(
            "INSERT INTO deployment_keys (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, make()
        )
        chosen: bytes = await connection.value("SELECT value FROM deployment_keys WHERE name = $1", name)
        return chosen


async def replace(pool: Pool, name: str, value: bytes) -> None:
    """Stores another form of a key that is there already. Raises DatabaseUnavailable."""
    async with pool.connection() as connection:
        await connection.run("UPDATE deployment_keys SET value = $2 WHERE name = $1", name, value)
