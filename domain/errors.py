"""Everything that can go wrong, as callers see it.

    ChatBackError
    ├── NotFound            UserNotFound ConversationNotFound MessageNotFound RunNotFound ModelNotFound
    │                       CollectionNotFound AssistantNotFound
    ├── AlreadyExists       EmailTaken RequestIdReused
    ├── InvalidInput        InvalidField PromptTooLong
    ├── OutOfRange          CursorAhead
    ├── Unauthenticated     CredentialsInvalid TokenInvalid RefreshTokenInvalid SessionEnded
    ├── PermissionDenied    RegistrationClosed PermissionMissing
    ├── Conflict            RunInProgress
    ├── RateLimited         CallsTooFrequent StreamsTooMany PasswordHashingBusy
    └── Unavailable         DatabaseUnavailable ReplicaDraining ReplicaFenced WatcherTooSlow
        └── ModelError      ModelKeyRefused ModelUnknown ModelRateLimited ModelUnavailable ModelStalled
                            ModelStreamBroken ModelRefused ReplicaLost

A kind decides the status code; a concrete error carries the `reason` that error_reason.proto lists.
Messages are written for the caller: they never hold another user's data, a secret or foreign exception text.
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID


class ChatBackError(Exception):
    """Something the caller is told: a reason, a sentence, and the facts in it as metadata."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata


class NotFound(ChatBackError):
    """The object does not exist, or is not the caller's: both read the same."""


class AlreadyExists(ChatBackError):
    """A unique thing is there already."""


class InvalidInput(ChatBackError):
    """The request is wrong in itself, whatever the state of the service."""

    field: str = ""


class OutOfRange(ChatBackError):
    """A position lies past the end of what exists."""


class Unauthenticated(ChatBackError):
    """Who calls is not known."""


class PermissionDenied(ChatBackError):
    """The caller is known and may not do this."""


class Conflict(ChatBackError):
    """The state of the object forbids the call for now."""


class RateLimited(ChatBackError):
    """A bound of this service is reached; `retry_after` says in how many seconds a retry has a chance."""

    def __init__(self, message: str, retry_after: float = 1.0, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after = retry_after


class Unavailable(ChatBackError):
    """Something this service needs does not answer; a retry may succeed."""


class UserNotFound(NotFound):
    reason = "USER_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such user")


class ConversationNotFound(NotFound):
    reason = "CONVERSATION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such conversation")


class MessageNotFound(NotFound):
    reason = "MESSAGE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such message")


class RunNotFound(NotFound):
    reason = "RUN_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such run")


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"

    def __init__(self, known: str) -> None:
        super().__init__(f"no such model; the configured ones are: {known}", models=known)


class CollectionNotFound(NotFound):
    reason = "COLLECTION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such collection")


class AssistantNotFound(NotFound):
    reason = "ASSISTANT_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such assistant")


class EmailTaken(AlreadyExists):
    reason = "EMAIL_TAKEN"

    def __init__(self) -> None:
        super().__init__("a user with this email exists already")


class RequestIdReused(AlreadyExists):
    reason = "REQUEST_ID_REUSED"

    def __init__(self) -> None:
        super().__init__("request_id was used in the last 24 hours with a different request")


class InvalidField(InvalidInput):
    """One field of the request breaks its rule; the message names the field and the limit."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}", field=field)
        self.field = field
        self.rule = rule


class PromptTooLong(InvalidInput):
    """The newest turn fills the model's window by itself; `field` is the one to change."""

    reason = "PROMPT_TOO_LONG"

    def __init__(self, limit: int, field: str = "content") -> None:
        super().__init__(
            f"the message does not fit the model: at most {limit} tokens for one message", limit=str(limit)
        )
        self.field = field


class CursorAhead(OutOfRange):
    reason = "CURSOR_AHEAD"

    def __init__(self, last_seq: int) -> None:
        super().__init__(f"after_seq is past the newest event, {last_seq}", last_seq=str(last_seq))


class CredentialsInvalid(Unauthenticated):
    reason = "CREDENTIALS_INVALID"

    def __init__(self) -> None:
        super().__init__("email or password is wrong")


class TokenInvalid(Unauthenticated):
    reason = "TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("a valid access token is needed: metadata `authorization: Bearer <token>`")


class RefreshTokenInvalid(Unauthenticated):
    reason = "REFRESH_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("refresh_token is not valid; sign in again")


class SessionEnded(Unauthenticated):
    reason = "SESSION_ENDED"

    def __init__(self) -> None:
        super().__init__("this session has ended; sign in again")


class RegistrationClosed(PermissionDenied):
    reason = "REGISTRATION_CLOSED"

    def __init__(self) -> None:
        super().__init__("registration is closed; set CHATBACK_REGISTRATION_OPEN=true to open it")


class PermissionMissing(PermissionDenied):
    reason = "PERMISSION_MISSING"

    def __init__(self) -> None:
        super().__init__("the caller may not do this")


class RunInProgress(Conflict):
    reason = "RUN_IN_PROGRESS"

    def __init__(self, run_id: UUID) -> None:
        super().__init__("this message is still being written", run_id=str(run_id))


class CallsTooFrequent(RateLimited):
    reason = "CALLS_TOO_FREQUENT"

    def __init__(self, per_second: float, retry_after: float) -> None:
        super().__init__(f"more than {per_second:g} calls a second", retry_after, limit=f"{per_second:g}")


class StreamsTooMany(RateLimited):
    reason = "STREAMS_TOO_MANY"

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} open streams", 1.0, limit=str(limit))


class PasswordHashingBusy(RateLimited):
    reason = "PASSWORD_HASHING_BUSY"

    def __init__(self) -> None:
        super().__init__("too many sign-ins at this moment", 2.0)


class DatabaseUnavailable(Unavailable):
    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the database does not answer")


class ReplicaDraining(Unavailable):
    reason = "REPLICA_DRAINING"

    def __init__(self, **metadata: str) -> None:
        super().__init__("this replica is stopping; go on with StreamRun", **metadata)


class ReplicaFenced(Unavailable):
    reason = "REPLICA_FENCED"

    def __init__(self, **metadata: str) -> None:
        super().__init__("this replica lost its lease; go on with StreamRun", **metadata)


class WatcherTooSlow(Unavailable):
    reason = "WATCHER_TOO_SLOW"

    def __init__(self, **metadata: str) -> None:
        super().__init__("the stream was not read in time; go on with StreamRun", **metadata)


class ModelError(Unavailable):
    """The model gave no whole answer. Told to watchers as a `failed` event, never as a status."""


class ModelKeyRefused(ModelError):
    reason = "MODEL_KEY_REFUSED"

    def __init__(self) -> None:
        super().__init__("the model's endpoint refused the API key; check CHATBACK_OPENAI_API_KEY")


class ModelUnknown(ModelError):
    reason = "MODEL_UNKNOWN"

    def __init__(self, model: str) -> None:
        super().__init__(f"the model's endpoint does not know {model!r}; check CHATBACK_CHAT_MODEL", model=model)


class ModelRateLimited(ModelError):
    reason = "MODEL_RATE_LIMITED"

    def __init__(self) -> None:
        super().__init__("the model's endpoint limits the rate of calls; try again later")


class ModelUnavailable(ModelError):
    reason = "MODEL_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the model's endpoint does not answer")


class ModelStalled(ModelError):
    reason = "MODEL_STALLED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the model sent nothing for {seconds:g} seconds", seconds=f"{seconds:g}")


class ModelStreamBroken(ModelError):
    reason = "MODEL_STREAM_BROKEN"

    def __init__(self) -> None:
        super().__init__("the model's stream ended before the answer did")


class ModelRefused(ModelError):
    reason = "MODEL_REFUSED"

    def __init__(self, status: int) -> None:
        super().__init__(f"the model's endpoint refused the request with HTTP status {status}", status=str(status))


class ReplicaLost(ModelError):
    """The process that made the answer died or stopped; what it wrote is kept."""

    reason = "REPLICA_LOST"

    def __init__(self) -> None:
        super().__init__("the server that wrote this answer stopped")
