"""Ports that several processes share, and that nobody else can have."""

import socket

import pytest

from entrypoints.errors import ServerError
from entrypoints.listening import check_port_is_free, reserved_port
from entrypoints.rest.server import listen


def test_a_reserved_port_is_shared_by_those_who_say_so() -> None:
    with (
        reserved_port("GRPC", "127.0.0.1", 0) as port,
        listen("127.0.0.1", port, shares_port=True),
        listen("127.0.0.1", port, shares_port=True) as second,
    ):
        assert second.getsockname()[1] == port


def test_all_connections_go_to_those_who_listen() -> None:
    with reserved_port("REST", "127.0.0.1", 0) as port, listen("127.0.0.1", port, shares_port=True) as listener:
        listener.setblocking(True)
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                listener.accept()[0].close()


def test_a_port_on_which_somebody_listens_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{port}.*CHATBACK_GRPC_PORT"):
            check_port_is_free("GRPC", "127.0.0.1", port)
        with pytest.raises(ServerError, match="CHATBACK_REST_PORT"), reserved_port("REST", "127.0.0.1", port):
            pass


def test_a_port_that_others_share_counts_as_taken() -> None:
    """The system would let the same user's next service in, and give it a part of the connections."""
    with (
        reserved_port("GRPC", "127.0.0.1", 0) as port,
        listen("127.0.0.1", port, shares_port=True),
        pytest.raises(ServerError),
    ):
        check_port_is_free("GRPC", "127.0.0.1", port)
