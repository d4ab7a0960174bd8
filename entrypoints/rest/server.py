"""The HTTP server, in the process and the event loop of the gRPC server, to which it is a client."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import uvicorn
from starlette.types import ASGIApp

from entrypoints.private_folder import private_folder
from entrypoints.rest.connection import Connection

KEEP_ALIVE_SECONDS = 75
UNACKNOWLEDGED_MS = 18_000
"""How long a client may leave what it was sent unacknowledged, or its window shut. A client that is gone is sent a
comment soon, and so found out within 30 s."""
PROBES = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""When a client to which nothing is sent is asked whether it lives: seconds, seconds, and times."""
STREAM_BYTES = 64 << 10


class RestServer(uvicorn.Server):
    """Serves an application on a socket that listens already."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, trusted_proxies: tuple[str, ...], grace_seconds: int
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._listener = listener

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def start(self, on_death: Callable[[asyncio.Task[None]], None]) -> None:
        """Begins to serve; `on_death` is told if that ends before `stop`."""
        self._on_death = on_death
        self._task = asyncio.create_task(self.serve([self._listener]), name="REST server")
        self._task.add_done_callback(on_death)

    async def stop(self) -> None:
        """Takes no new requests, and returns when those that are being answered have ended or the grace is over."""
        self._task.remove_done_callback(self._on_death)
        self.should_exit = True
        await self._task

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the service."""
        yield


def listen(host: str, port: int, *, shares_port: bool = False) -> socket.socket:
    """Returns a socket that takes connections, or its share of them. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections inherit these: a client that vanished without a word is found out by them.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**PROBES, "TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS}.items():
            if hasattr(socket, name):  # not every system has all
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


@contextmanager
def private_address(parent: Path | None = None) -> Iterator[str]:
    """Yields an address for gRPC on a unix socket that no other user can reach, in a folder below the parent."""
    with private_folder(parent) as folder:
        yield f"unix:{folder}/grpc.sock"


def channel_to(address: str) -> grpc.aio.Channel:
    """Returns the channel that all requests share; what the server answers is its own business, so of any size."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_metadata_size", 64 << 10),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            # A stream that is not read here keeps so much of what was sent, and not ever more.
            ("grpc.http2.lookahead_bytes", STREAM_BYTES),
            ("grpc.http2.bdp_probe", 0),
        ],
    )
