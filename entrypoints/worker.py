"""One of several equal processes on the same two ports; the supervisor starts it and is at the other end of stdin."""

import os
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from domain.errors import ChatBackError
from entrypoints.errors import OperatorError

ORPHANED = 3
"""The exit status of a worker whose supervisor is gone."""
INTERRUPTED = 130
"""That of one that was told to stop while it did something else than serving."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Which one this is, from 1 on. `folder` is shared by all and private to them: there they find one another."""

    number: int
    folder: Path

    @property
    def is_first(self) -> bool:
        """Says whether it does what is done once for all of them."""
        return self.number == 1


def main(arguments: Sequence[str]) -> int:
    """Serves as the worker that the arguments name, `NUMBER FOLDER`, with the settings of the environment alone."""
    worker = Worker(int(arguments[0]), Path(arguments[1]))
    try:
        _serve(worker, _end_with_the_supervisor())
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ChatBackError, OperatorError, OSError) as error:
        sys.stderr.write(f"chatback: worker {worker.number}: {error}\n")
        return 1
    return 0


def _serve(worker: Worker, supervisor: socket.socket) -> None:
    import uvloop

    from entrypoints.backing_servers import Addresses, revealed
    from entrypoints.logs import configure_logs
    from entrypoints.server import serve
    from entrypoints.settings import read_settings

    settings = read_settings(file=None)
    configure_logs(settings.log_level, settings.log_format, worker=worker.number)
    uvloop.run(
        serve(
            settings,
            Addresses(revealed(settings.database_url), revealed(settings.redis_url)),
            announce=lambda ready: supervisor.sendall(msgspec.json.encode(ready) + b"\n"),
            child_died=lambda: None,
            worker=worker,
        )
    )


def _end_with_the_supervisor() -> socket.socket:
    """Returns the line to the supervisor, and from now on ends the process when that falls silent.

    At once, as if both had been killed together: nobody is left to start the next one, and it may want the ports.
    """
    line = socket.socket(fileno=os.dup(sys.stdin.fileno()))

    def listen() -> None:
        while line.recv(1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=listen, name="supervisor", daemon=True).start()
    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
