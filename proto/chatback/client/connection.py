"""The channel to the service."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, TypeAlias

import grpc

Tls: TypeAlias = bool | grpc.ChannelCredentials
Option: TypeAlias = tuple[str, Any]

# A peer that is gone is found within 28 s, also in the middle of a silent stream; one that comes back, within 3 s.
# Calls take turns over all replicas that can be reached, so that another try meets another replica.
OPTIONS: Sequence[Option] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
)


def connect(
    target: str | Sequence[str],
    *,
    tls: Tls,
    options: Sequence[Option],
    interceptors: Sequence[grpc.aio.ClientInterceptor],
) -> grpc.aio.Channel:
    """Returns a channel that connects with its first call. `tls` True trusts the usual authorities.

    `options` replace those of the same names in OPTIONS: of two, gRPC would take the first.
    Raises ValueError for replicas that are not all IPv4, or all IPv6, addresses.
    """
    name = target if isinstance(target, str) else _name_of(target)
    every = list({**dict(OPTIONS), **dict(options)}.items())
    if tls is False:
        return grpc.aio.insecure_channel(name, options=every, interceptors=interceptors)
    credentials = grpc.ssl_channel_credentials() if tls is True else tls
    return grpc.aio.secure_channel(name, credentials, options=every, interceptors=interceptors)


def _name_of(replicas: Sequence[str]) -> str:
    """Returns what gRPC calls several addresses."""
    try:
        (version,) = {ip_address(replica.rpartition(":")[0].strip("[]")).version for replica in replicas}
    except ValueError:
        rule = "replicas are ip:port, all IPv4 or all IPv6; for host names use one that resolves to all of them"
        raise ValueError(rule) from None
    return f"ipv{version}:{','.join(replicas)}"
