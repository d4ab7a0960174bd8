"""Containers through Docker's command line, each gone with its data at the end of its block."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

IMAGE = "localhost/chatback:tests"
READY = "ChatBack is ready"


@dataclass(frozen=True, slots=True)
class Container:
    """A container, known by its id."""

    id: str

    def run(self, *command: str) -> str:
        """Runs a command in it, which must succeed, and returns what that printed."""
        return docker("exec", self.id, *command)

    def fails(self, *command: str) -> bool:
        """Tells whether a command in it fails."""
        return subprocess.run(["docker", "exec", self.id, *command], capture_output=True, check=False).returncode != 0

    def address(self, port: int) -> str:
        """Returns where a port of it is reached from here."""
        return docker("port", self.id, f"{port}/tcp").splitlines()[0]

    def wait_for(self, words: str) -> None:
        """Follows what it prints until these words have come; fails if it ends before."""
        command = ["docker", "logs", "--follow", self.id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as log:
            assert log.stdout is not None
            said = []
            for line in log.stdout:
                said.append(line)
                if words in line:
                    log.terminate()
                    return
        raise AssertionError("".join(said))

    def stop(self) -> int:
        """Stops it as an operator would, and returns its exit status: 137 if it had to be killed."""
        docker("stop", self.id)
        return self.ended()

    def ended(self) -> int:
        """Waits until it has ended, and returns its exit status."""
        return int(docker("wait", self.id))

    def kill(self) -> None:
        """Ends it as a power cut would."""
        docker("kill", self.id)

    def health(self) -> str:
        """Waits until Docker has come to a view of its health, and returns that."""
        events = ["docker", "events", "--since=0", f"--filter=container={self.id}", "--format={{.Status}}"]
        with subprocess.Popen(events, stdout=subprocess.PIPE, text=True) as stream:
            assert stream.stdout is not None
            view = docker("inspect", "--format={{.State.Health.Status}}", self.id)
            if view == "starting":
                views = (line.partition("health_status: ")[2].strip() for line in stream.stdout)
                view = next(filter(None, views))
            stream.terminate()
        return view


@contextmanager
def container(image: str, *options: str, **settings: str) -> Iterator[Container]:
    """Runs an image until the end of the block; settings become CHATBACK_ variables."""
    variables = [f"--env=CHATBACK_{name.upper()}={value}" for name, value in settings.items()]
    started = Container(docker("run", "--detach", *options, *variables, image))
    try:
        yield started
    finally:
        docker("rm", "--force", "--volumes", started.id)


@contextmanager
def service(*options: str, **settings: str) -> Iterator[Container]:
    """Runs the service, with its ports on any free ports of 127.0.0.1, and waits until it is ready."""
    ports = ("--publish=127.0.0.1::50051", "--publish=127.0.0.1::8080")
    with container(IMAGE, *ports, *options, **settings) as started:
        started.wait_for(READY)
        yield started


@contextmanager
def network() -> Iterator[str]:
    """Makes a network in which containers find one another by name."""
    made = docker("network", "create", f"chatback-tests-{uuid4().hex}")
    try:
        yield made
    finally:
        docker("network", "rm", made)


@contextmanager
def volume() -> Iterator[str]:
    """Makes a volume that outlives the containers that use it."""
    made = docker("volume", "create")
    try:
        yield made
    finally:
        docker("volume", "rm", made)


def answers() -> bool:
    """Tells whether there is a Docker engine."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def docker(*words: str) -> str:
    """Returns what Docker answers; an error of it fails the test with its words."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def configured(name: str) -> object:
    """Returns what the image says about how it is run."""
    return json.loads(docker("image", "inspect", "--format={{json .Config}}", IMAGE))[name]
