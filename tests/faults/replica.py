"""The service as a process that dies or stops at a failpoint when it is told to: `python -m tests.faults.replica`.

It is told, and tells, over the socket whose number is in FAULTS_CONTROL, one line each:

    arm NAME ACTION COUNT   do this when NAME is reached for the COUNT-th time from now on: kill or stop
    disarm NAME             don't
    reached NAME            NAME was reached for the first time in this process
    kill NAME, stop NAME    what is about to be done
"""

from __future__ import annotations

import os
import signal
import socket
import sys
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
        self._seen: set[str] = set()

    def listen(self) -> None:
        """Takes orders for ever; ends the process when the test does, so that none is left behind."""
        for line in self._control.makefile():
            match line.split():
                case ["arm", name, action, count]:
                    self._armed[name] = Armed(action, int(count))
                case ["disarm", name]:
                    self._armed.pop(name, None)
        os._exit(1)

    def reached(self, name: str) -> None:
        """Takes note of a hit, and acts if it is the one."""
        if name not in self._seen:
            self._seen.add(name)
            self._say("reached", name)
        armed = self._armed.get(name)
        if armed is None:
            return
        armed.count -= 1
        if armed.count == 0:
            self._say(armed.action, name)
            os.kill(os.getpid(), ACTIONS[armed.action])

    def _say(self, what: str, name: str) -> None:
        self._control.sendall(f"{what} {name}\n".encode())


def main() -> int:
    """Serves, like `./bin/dev api`."""
    failpoints = Failpoints(socket.socket(fileno=int(os.environ["FAULTS_CONTROL"])))
    Thread(target=failpoints.listen, daemon=True).start()
    on_failpoint(failpoints.reached)
    return cli.main(["api"])


if __name__ == "__main__":
    sys.exit(main())
