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
from entrypoints.settings import MOST_WORKERS, Settings, read_settings, unknown_variables


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


def api(settings: Settings, parsed: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    from entrypoints.backing_servers import backing_servers, ensure_schema
    from entrypoints.greeting import Ready, greeting
    from entrypoints.listening import check_port_is_free
    from entrypoints.logs import configure_logs

    def announce(ready: Ready) -> None:
        print(greeting(settings, ready), flush=True)

    signal.signal(signal.SIGTERM, _as_interrupt)
    configure_logs(settings.log_level, settings.log_format)
    workers = parsed.workers or settings.workers
    if unknown := unknown_variables():
        _say(f"ignoring what is no setting: {', '.join(unknown)}")
    check_port_is_free("GRPC", settings.grpc_host, settings.grpc_port)
    check_port_is_free("REST", settings.rest_host, settings.serves_rest_on)
    with backing_servers(settings, connections=workers * settings.connections, say=_say) as (addresses, child_died):
        ensure_schema(addresses.database_url, say=_say)
        if workers > 1:
            from entrypoints.supervisor import supervise

            supervise(settings, addresses, workers, announce=announce, child_died=child_died)
        else:
            import uvloop

            from entrypoints.server import serve

            uvloop.run(serve(settings, addresses, announce=announce, child_died=child_died))
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
        if command is api:
            sub.add_argument("--workers", type=_count, metavar="N", help="processes that serve (CHATBACK_WORKERS)")
        if command in (token, chat):
            sub.add_argument("--email", help="whom to sign in (default: the operator of the data folder)")
            sub.add_argument("--password", help="asked for when it is left out")
        if command is chat:
            sub.add_argument("--conversation", help="the id of a conversation to go on with (default: a new one)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"should be a number from 1 to {MOST_WORKERS}")
    return int(text)


def _say(line: str) -> None:
    print(f"chatback: {line}", file=sys.stderr, flush=True)


def _as_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Lets SIGTERM undo what has been started, as Ctrl-C does, until the server handles signals itself."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
