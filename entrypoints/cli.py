"""The commands of the service itself; ./bin/dev is the door to them."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from domain.errors import ChatBackError
from entrypoints.errors import OperatorError
from entrypoints.settings import Settings, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; whatever is wrong with settings or surroundings is one line and exit status 1."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.command(read_settings(), parsed))
    except KeyboardInterrupt:
        return 130
    except (ChatBackError, OperatorError, OSError) as error:
        _say(str(error))
        return 1


def api(settings: Settings, _: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    import uvloop

    from entrypoints.backing_servers import backing_servers, ensure_schema
    from entrypoints.greeting import greeting
    from entrypoints.listening import check_port_is_free
    from entrypoints.logs import configure_logs
    from entrypoints.server import serve

    signal.signal(signal.SIGTERM, _as_interrupt)
    configure_logs(settings.log_level, settings.log_format)
    check_port_is_free("GRPC", settings.grpc_host, settings.grpc_port)
    check_port_is_free("REST", settings.rest_host, settings.serves_rest_on)
    with backing_servers(settings, say=_say) as (addresses, child_died):
        ensure_schema(addresses.database_url, say=_say)
        uvloop.run(
            serve(
                settings,
                addresses,
                child_died=child_died,
                announce=lambda ready: print(greeting(settings, ready), flush=True),
            )
        )
    return 0


def migrate(settings: Settings, _: argparse.Namespace) -> int:
    """Brings the database to the newest schema; harmless when it is there, and when several do it at once."""
    from adapters.postgres.migrate import migrate as upgrade
    from entrypoints.backing_servers import backing_servers

    with backing_servers(settings, valkey=False, say=_say) as (addresses, _died):
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


def health(settings: Settings, _: argparse.Namespace) -> int:
    """Asks the running service whether it takes calls: exit status 0 is yes, 1 is no."""
    from entrypoints.terminal.health import check_health

    check_health(settings)
    _say("the service takes calls")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chatback", description="A self-hosted chat backend over gRPC.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (api, migrate, token, chat, health):
        summary = (command.__doc__ or "").strip()
        sub = commands.add_parser(command.__name__, help=summary, description=summary)
        sub.set_defaults(command=command)
        if command in (token, chat):
            sub.add_argument("--email", help="whom to sign in (default: the operator of the data folder)")
            sub.add_argument("--password", help="asked for when it is left out")
        if command is chat:
            sub.add_argument("--conversation", help="the id of a conversation to go on with (default: a new one)")
    return parser


def _say(line: str) -> None:
    print(f"chatback: {line}", file=sys.stderr, flush=True)


def _as_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Lets SIGTERM undo what has been started, as Ctrl-C does, until the server handles signals itself."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
