"""What goes wrong in PostgreSQL, told in this service's words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import asyncpg

from domain.errors import ChatBackError, DatabaseUnavailable, EmailTaken, InvalidField

_CONSTRAINTS: Mapping[str, Callable[[], ChatBackError]] = {"users_email_key": EmailTaken}

# A retry may succeed: nothing here says that the statement itself is wrong.
_UNAVAILABLE = (
    OSError,  # TimeoutError is one: no free connection, no answer
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InternalClientError,  # the connection went away between two steps of the driver
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
# The pool takes back a connection that was cut, even from under its user.
_SIGNS_OF_LOSS = ("is closed", "is closing", "is cancelling", "released back to the pool")
_REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)


@contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's exceptions into domain errors; those that only a wrong program causes pass unchanged."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        broken = _CONSTRAINTS.get(error.constraint_name or "")
        if broken is None:
            raise
        raise broken() from error
    except _REFUSED as error:
        raise InvalidField("content", "holds what the database cannot store") from error
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable from error
    except asyncpg.InterfaceError as error:
        if not _lost(error):
            raise
        raise DatabaseUnavailable from error


def _lost(error: asyncpg.InterfaceError) -> bool:
    """Says whether the connection is gone: the driver raises the same class for that and for misuse."""
    return any(sign in str(error) for sign in _SIGNS_OF_LOSS)
