"""Where PostgreSQL and Valkey are, and the schema in the database."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from adapters.postgres.migrate import current_and_head
from domain.errors import DatabaseUnavailable
from entrypoints.embedded import embedded_servers
from entrypoints.errors import OperatorError
from entrypoints.settings import Settings

MIGRATE = "import asyncio, os; from adapters.postgres.migrate import migrate; asyncio.run(migrate(os.environ['URL']))"


class MigrationError(OperatorError):
    """The schema is not what this program needs."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where what the service needs listens."""

    database_url: str
    redis_url: str

    def variables(self) -> dict[str, str]:
        """Returns the settings that lead another process there."""
        return {"CHATBACK_DATABASE_URL": self.database_url, "CHATBACK_REDIS_URL": self.redis_url}


@contextmanager
def backing_servers(
    settings: Settings, *, connections: int = 0, valkey: bool = True, say: Callable[[str], None]
) -> Iterator[tuple[Addresses, Callable[[], str | None]]]:
    """Yields the configured servers, with embedded ones in place of those that are not configured.

    An embedded PostgreSQL allows at least so many `connections`.
    With them comes a function that says in one line which embedded server has died, None while all live.
    """
    needs_postgres, needs_valkey = settings.database_url is None, valkey and settings.redis_url is None
    database_url, redis_url = revealed(settings.database_url), revealed(settings.redis_url)
    if not needs_postgres and not needs_valkey:
        yield Addresses(database_url, redis_url), lambda: None
        return
    with embedded_servers(
        settings.data_dir, postgres=needs_postgres, valkey=needs_valkey, connections=connections, say=say
    ) as embedded:
        yield (
            Addresses(database_url or embedded.database_url or "", redis_url or embedded.redis_url or ""),
            embedded.died,
        )


def ensure_schema(database_url: str, *, say: Callable[[str], None]) -> None:
    """Brings the database to the newest schema if it is behind. Raises MigrationError.

    The tool that does it, 40 MB that are needed once, stays out of the process that serves.
    """
    try:
        current, head = asyncio.run(current_and_head(database_url))
    except DatabaseUnavailable:
        raise MigrationError("the database does not answer; check CHATBACK_DATABASE_URL") from None
    except ValueError:  # the driver's: a parameter of the URL that it does not know
        raise MigrationError("CHATBACK_DATABASE_URL is not understood") from None
    if current == head:
        return
    say("bringing the database to the newest schema")
    done = subprocess.run([sys.executable, "-c", MIGRATE], env={**os.environ, "URL": database_url}, check=False)
    if done.returncode:
        raise MigrationError("the database could not be brought to the newest schema; the lines above say why")


def revealed(secret: SecretStr | None) -> str:
    """Returns the text of a secret, none where there is no secret."""
    return secret.get_secret_value() if secret else ""
