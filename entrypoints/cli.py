"""The commands of the service itself; ./bin/dev is the door to them."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from pydantic import SecretStr

from entrypoints.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from entrypoints.server import Addresses


class MigrationError(Exception):
    """The schema is not what this program needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; whatever is wrong with settings or surroundings is one line and exit status 1."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.command(read_settings(), parsed))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, (*_expected_errors(), OSError)):
            raise
        _say(str(error))
        return 1


def api(settings: Settings, _: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    import uvloop

    from entrypoints.greeting import greeting
    from entrypoints.logs import configure_logs
    from entrypoints.operator import load_or_create_operator
    from entrypoints.server import check_port_is_free, serve

    signal.signal(signal.SIGTERM, _as_interrupt)
    configure_logs(settings.log_level, settings.log_format)
    check_port_is_free(settings.grpc_host, settings.grpc_port)
    with _servers(settings) as (addresses, child_died):
        if asyncio.run(_is_behind(addresses.database_url)):
            _say("bringing the database to the newest schema")
            _migrate_in_a_child(addresses.database_url)
        operator = load_or_create_operator(settings.data_dir, settings.operator_email)
        uvloop.run(
            serve(
                settings,
                addresses,
                operator,
                child_died=child_died,
                announce=lambda ready: print(greeting(settings, ready), flush=True),
            )
        )
    return 0


def migrate(settings: Settings, _: argparse.Namespace) -> int:
    """Brings the database to the newest schema; harmless when it is there, and when several do it at once."""
    from adapters.postgres.migrate import migrate as upgrade

    with _servers(settings, valkey=False) as (addresses, _died):
        asyncio.run(upgrade(addresses.database_url))
    _say("the database has the newest schema")
    return 0


def token(settings: Settings, parsed: argparse.Namespace) -> int:
    """Prints an access token of the running service, for the operator or for the user that is named."""
    from entrypoints.terminal.sign_in import sign_in

    print(asyncio.run(sign_in(settings, parsed.email, parsed.password)).access_token)
    return 0


def chat(settings: Settings, parsed: argparse.Namespace) -> int:
    """Talks to the running service in this terminal."""
    from entrypoints.terminal.chat import chat as talk

    return asyncio.run(talk(settings, parsed.email, parsed.password, parsed.conversation))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chatback", description="A self-hosted chat backend over gRPC.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (api, migrate, token, chat):
        summary = (command.__doc__ or "").strip()
        sub = commands.add_parser(command.__name__, help=summary, description=summary)
        sub.set_defaults(command=command)
        if command in (token, chat):
            sub.add_argument("--email", help="whom to sign in (default: the operator of the data folder)")
            sub.add_argument("--password", help="asked for when it is left out")
        if command is chat:
            sub.add_argument("--conversation", help="the id of a conversation to go on with (default: a new one)")
    return parser


@contextmanager
def _servers(settings: Settings, *, valkey: bool = True) -> Iterator[tuple["Addresses", Callable[[], str | None]]]:
    """Yields where PostgreSQL and Valkey are: the configured ones, or embedded ones for each that is not."""
    from entrypoints.embedded import embedded_servers
    from entrypoints.server import Addresses

    needs_postgres, needs_valkey = settings.database_url is None, valkey and settings.redis_url is None
    if not needs_postgres and not needs_valkey:
        yield Addresses(_url(settings.database_url), _url(settings.redis_url)), lambda: None
        return
    with embedded_servers(settings.data_dir, postgres=needs_postgres, valkey=needs_valkey, say=_say) as embedded:
        yield (
            Addresses(
                _url(settings.database_url) or embedded.database_url or "",
                _url(settings.redis_url) or embedded.redis_url or "",
            ),
            embedded.died,
        )


async def _is_behind(database_url: str) -> bool:
    from adapters.postgres.migrate import current_and_head

    current, head = await current_and_head(database_url)
    return current != head


def _migrate_in_a_child(database_url: str) -> None:
    """Keeps the migration tool, 40 MB that are needed once, out of the process that serves."""
    environment = {**os.environ, "CHATBACK_DATABASE_URL": database_url}
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", "migrate"], env=environment, check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise MigrationError("the database could not be brought to the newest schema; the lines above say why")


def _expected_errors() -> tuple[type[Exception], ...]:
    """Names the errors that are the surroundings' fault; loaded late because most commands need few of them."""
    from adapters.security.key_ring import KeyRingError
    from domain.errors import ChatBackError
    from entrypoints.embedded import EmbeddedError
    from entrypoints.server import ServerError
    from entrypoints.terminal.sign_in import TerminalError

    return ChatBackError, EmbeddedError, KeyRingError, MigrationError, ServerError, SettingsError, TerminalError


def _url(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _say(line: str) -> None:
    print(f"chatback: {line}", file=sys.stderr, flush=True)


def _as_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Lets SIGTERM undo what has been started, as Ctrl-C does, until the server handles signals itself."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
