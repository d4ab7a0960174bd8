"""What the terminal says when the service is ready: where it is, who may sign in, what to try."""

from dataclasses import dataclass

from entrypoints.settings import Settings

BUF = ".venv/bin/buf curl --protocol grpc --http2-prior-knowledge"


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known once calls are taken. `operator` is empty where another process tells it."""

    grpc_port: int
    rest_port: int
    operator: str


def greeting(settings: Settings, ready: Ready) -> str:
    """Returns the lines; the commands in them work when pasted, from the project's folder."""
    address = f"{settings.grpc_host}:{ready.grpc_port}"
    rest = f"http://{settings.rest_host}:{ready.rest_port}"
    model = ", ".join(settings.chat_models) if settings.uses_openai else "extractive (no language model is configured)"
    return "\n".join(
        [
            f"ChatBack is ready: gRPC on {address}, model {model}",
            f"REST on {rest}, with /docs, /readyz and /metrics",
            f"Operator: {ready.operator}",
            "",
            *_hints(address, rest),
        ]
    )


def _hints(address: str, rest: str) -> list[str]:
    authorization = '-H "authorization: Bearer $(./bin/dev token)"'
    url = f"http://{address}/chatback.v1"
    return [
        "Try, in another terminal:",
        "  ./bin/dev chat",
        f"  {BUF} {authorization} -d '{{}}' {url}.AuthService/GetCurrentUser",
        f'  {BUF} {authorization} -d \'{{"title": "First"}}\' {url}.ConversationService/CreateConversation',
        f"  curl {authorization} {rest}/v1/users/me",
        f"  grpcurl -plaintext {authorization} {address} chatback.v1.ModelService/ListModels",
        "Ctrl-C stops it.",
    ]
