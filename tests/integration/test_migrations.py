"""The schema's way up and down, on a real server."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from adapters.postgres.migrate import current_and_head, downgrade, migrate
from domain.errors import DatabaseUnavailable

MIGRATIONS = Path(__file__).parents[2] / "migrations"


def revisions() -> list[str]:
    """All revisions, oldest first, as alembic sees them."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


async def schema(url: str) -> list[str]:
    """Describes every column, constraint and index of the database."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("""
            SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace ORDER BY 1""")
    finally:
        await connection.close()
    return [row["line"] for row in rows]


async def test_every_revision_goes_up_down_and_up_again_to_the_same_schema(fresh_database_url: str) -> None:
    await migrate(fresh_database_url)
    upgraded = await schema(fresh_database_url)
    for revision in ["base", *revisions()[:-1]][::-1]:
        await downgrade(fresh_database_url, revision)
        await migrate(fresh_database_url)
        assert await schema(fresh_database_url) == upgraded


async def test_a_downgrade_to_base_leaves_nothing_but_the_version_table(fresh_database_url: str) -> None:
    await migrate(fresh_database_url)
    await downgrade(fresh_database_url, "base")
    assert all("alembic_version" in line for line in await schema(fresh_database_url))


async def test_five_processes_may_migrate_at_once(fresh_database_url: str) -> None:
    await asyncio.gather(*(migrate(fresh_database_url) for _ in range(5)))
    current, head = await current_and_head(fresh_database_url)
    assert current == head


async def test_an_empty_database_has_no_revision(fresh_database_url: str) -> None:
    assert (await current_and_head(fresh_database_url))[0] is None


async def test_the_newest_revision_by_file_name_is_the_head_that_alembic_sees(fresh_database_url: str) -> None:
    assert (await current_and_head(fresh_database_url))[1] == revisions()[-1]


async def test_a_url_may_name_the_driver_as_sqlalchemy_does(fresh_database_url: str) -> None:
    await migrate(fresh_database_url.replace("postgresql://", "postgresql+asyncpg://"))
    assert (await current_and_head(fresh_database_url))[0] is not None


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate(f"postgresql://postgres@/postgres?host={tmp_path}")
