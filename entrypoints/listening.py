"""Addresses to listen on, and what to say when they can't be had."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from entrypoints.errors import ServerError


def check_port_is_free(kind: str, host: str, port: int) -> None:
    """Raises ServerError when somebody listens there, before anything is started for nothing."""
    _bound(kind, host, port, shared=False).close()


@contextmanager
def reserved_port(kind: str, host: str, port: int) -> Iterator[int]:
    """Yields a port that processes of this user can share, any free one for 0, and keeps it from all others.

    It takes no connections here. Raises ServerError when it can't be had.
    """
    with _bound(kind, host, port, shared=True) as held:
        yield int(held.getsockname()[1])


def port_in_use(kind: str, host: str, port: int) -> str:
    """Returns the line about an address that can't be had; `kind` is GRPC or REST, as in the settings."""
    variables = f"CHATBACK_{kind}_HOST, CHATBACK_{kind}_PORT"
    return f"can't listen on {host}:{port}: it is in use or not allowed; set {variables}"


def _bound(kind: str, host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, _, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError:
        raise ServerError(port_in_use(kind, host, port)) from None
    return bound
