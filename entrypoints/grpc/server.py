"""The gRPC server: services, health, reflection, and the limits of a connection."""

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as aio_health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from chatback.v1 import (
    auth_service_pb2_grpc,
    chat_service_pb2_grpc,
    conversation_service_pb2_grpc,
    model_service_pb2_grpc,
)
from entrypoints.grpc.auth import AuthServicer
from entrypoints.grpc.chat import ChatServicer
from entrypoints.grpc.conversations import ConversationServicer
from entrypoints.grpc.models import ModelServicer
from entrypoints.grpc.pipeline import Pipeline

SERVICES = (
    "chatback.v1.AuthService",
    "chatback.v1.ConversationService",
    "chatback.v1.ChatService",
    "chatback.v1.ModelService",
)
REFLECTION = "grpc.reflection.v1.ServerReflection"


def build_server(
    pipeline: Pipeline,
    *,
    auth: AuthServicer,
    conversations: ConversationServicer,
    chat: ChatServicer,
    models: ModelServicer,
    max_request_mb: int,
    with_reflection: bool,
    shares_port: bool = False,
    ping_seconds: float = 20,
    ping_timeout_seconds: float = 8,
) -> grpc.aio.Server:
    """Returns a server that holds all services and listens nowhere yet.

    A client that was silent for `ping_seconds` is asked whether it lives, and has `ping_timeout_seconds` to say so.
    """
    limits = _limits(max_request_mb)
    pings = _pings(round(ping_seconds * 1000), round(ping_timeout_seconds * 1000))
    options = [("grpc.so_reuseport", int(shares_port)), *limits, *pings]
    server = grpc.aio.server(interceptors=[pipeline], options=options)
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
    conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server(conversations, server)
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(chat, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    if with_reflection:
        _add_reflection(server)
    return server


async def add_health(server: grpc.aio.Server) -> aio_health.HealthServicer:
    """Adds the health service, SERVING for the server as a whole ("") and for each service."""
    health = aio_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for service in ("", *SERVICES):
        await health.set(service, health_pb2.HealthCheckResponse.SERVING)
    return health


def _add_reflection(server: grpc.aio.Server) -> None:
    """Serves reflection as v1alpha and, since the package knows that only, the same servicer as v1.

    v1 does not list itself: tools describe all that is listed, and the package has no description of it.
    """
    names: Sequence[str] = (*SERVICES, HEALTH, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    servicer = reflection.aio.ReflectionServicer(service_names=names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": handler}),)
    )


def _limits(max_request_mb: int) -> list[tuple[str, int]]:
    """Connections live 30 min at most, so that load spreads again when replicas come and go."""
    return [
        ("grpc.max_receive_message_length", max_request_mb << 20),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.max_connection_age_ms", 30 * 60_000),
        ("grpc.max_connection_age_grace_ms", 30 * 60_000),
    ]


def _pings(every_ms: int, timeout_ms: int) -> list[tuple[str, int]]:
    """Finds dead peers. The ping's own time-out is what bounds it; the other one alone leaves it at a minute."""
    return [
        ("grpc.keepalive_time_ms", every_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ]
