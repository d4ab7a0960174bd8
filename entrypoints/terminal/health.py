"""Asking the running service whether it takes calls, as whatever watches over a container does."""

import grpc
from grpc_health.v1 import health_pb2

from entrypoints.settings import Settings
from entrypoints.terminal.failures import TerminalError, address

ANSWER_SECONDS = 3


def check_health(settings: Settings) -> None:
    """Returns if the service of these settings says SERVING. Raises TerminalError if it does not, or not in time."""
    where = address(settings)
    with grpc.insecure_channel(where, options=(("grpc.enable_http_proxy", 0),)) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise TerminalError(f"no health answer from {where}: {error.code().name}") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise TerminalError(f"{where} says {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")
