"""AuthService over gRPC."""

from application.accounts import Accounts
from chatback.v1 import auth_service_pb2 as pb
from chatback.v1 import auth_service_pb2_grpc
from domain.identity import Registration
from entrypoints.grpc.mapping import tokens_to_proto, user_to_proto
from entrypoints.grpc.pipeline import Context, current_caller


class AuthServicer(auth_service_pb2_grpc.AuthServiceServicer):
    """Sign-in and the caller's own account."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        registration = Registration(request.email, request.password, request.display_name)
        return pb.RegisterResponse(user=user_to_proto(await self._accounts.register(registration)))

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        tokens, user = await self._accounts.login(request.email, request.password)
        return pb.LoginResponse(tokens=tokens_to_proto(tokens), user=user_to_proto(user))

    async def RefreshTokens(self, request: pb.RefreshTokensRequest, context: Context) -> pb.RefreshTokensResponse:
        return pb.RefreshTokensResponse(tokens=tokens_to_proto(await self._accounts.refresh(request.refresh_token)))

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        await self._accounts.logout(current_caller())
        return pb.LogoutResponse()

    async def GetCurrentUser(self, request: pb.GetCurrentUserRequest, context: Context) -> pb.GetCurrentUserResponse:
        return pb.GetCurrentUserResponse(user=user_to_proto(await self._accounts.current_user(current_caller())))

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        await self._accounts.change_password(current_caller(), request.current_password, request.new_password)
        return pb.ChangePasswordResponse()
