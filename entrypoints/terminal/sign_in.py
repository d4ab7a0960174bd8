"""Signing in to the running service from a terminal."""


import grpc

from chatback.v1 import auth_service_pb2_grpc, user_pb2
from entrypoints.settings import Settings

CALL_SECONDS = 10


class TerminalError(Exception):
    """Why a terminal command can't go on; one line."""


async def sign_in(settings: Settings, email: str | None, password: str | None) -> user_pb2.Tokens:
    """Returns tokens of the user that is named, of the data folder's operator otherwise. Raises TerminalError."""
    request = _credentials(settings, email, password)
    async with connect(settings) as channel:
        try:
            response = await auth_service_pb2_grpc.AuthServiceStub(channel).Login(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise TerminalError(explain(settings, error)) from None
    return response.tokens
