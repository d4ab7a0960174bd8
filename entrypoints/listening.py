"""Addresses to listen on, and what to say when they can't be had."""

import socket

from entrypoints.errors import ServerError


def check_port_is_free(kind: str, host: str, port: int) -> None:
    """Raises ServerError when somebody listens there, before anything is started for nothing."""
    try:
        family, _, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        raise ServerError(port_in_use(kind, host, port)) from None


def port_in_use(kind: str, host: str, port: int) -> str:
    """Returns the line about an address that can't be had; `kind` is GRPC or REST, as in the settings."""
    variables = f"CHATBACK_{kind}_HOST, CHATBACK_{kind}_PORT"
    return f"can't listen on {host}:{port}: it is in use or not allowed; set {variables}"
