"""The service as a process that dies or stops at a failpoint when it is told to: `python -m tests.faults.replica`.

It is told over the socket whose number is in FAULTS_CONTROL, one line each:

    arm NAME ACTION COUNT   do this when NAME is reached for the COUNT-th time from now on: kill or stop
    disarm NAME             don't

and says NAME when it is about to do so.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

from application.failpoint import on_failpoint
from entrypoints import cli

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class Armed:
    """What is to be done at a failpoint, after so many hits."""

    action: str
    count: int


class Failpoints:
    """Does at the failpoints what the test says."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._armed: dict[str, Armed] = {}

    def listen(self) -> None:
        """Takes orders for ever; ends the process when the test does, so that none is left behind."""
        with suppress(OSError):
            for line in self._control.makefile():
                self._obey(*line.split())
        os._exit(1)

    def _obey(self, what: str, name: str, action: str = "", count: str = "0") -> None:
        if what == "arm":
            self._armed[name] = Armed(action, int(count))
        else:
            self._armed.pop(name, None)

    def reached(self, name: str) -> None:
        """Counts a hit, and acts if it is the one."""
        armed = self._armed.get(name)
        if armed is None:
            return
        armed.count -= 1
        if armed.count == 0:
            self._control.sendall(f"{name}\n".encode())
            os.kill(os.getpid(), ACTIONS[armed.action])


def main() -> int:
    """Serves, like `./bin/dev api`."""
    failpoints = Failpoints(socket.socket(fileno=int(os.environ["FAULTS_CONTROL"])))
    Thread(target=failpoints.listen, daemon=True).start()
    on_failpoint(failpoints.reached)
    return cli.main(["api"])


if __name__ == "__main__":
    sys.exit(main())
