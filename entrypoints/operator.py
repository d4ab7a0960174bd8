"""The first user of a deployment: made once, kept where only its owner reads it."""

import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

FILE = "operator.json"


@dataclass(frozen=True, slots=True)
class Operator:
    """E-mail and password of the bootstrap operator."""

    email: str
    password: str = field(repr=False)


async def bootstrap_operator(data_dir: Path, email: str, ensure: Callable[[str, str], Awaitable[bool]]) -> str:
    """Sees to it that the deployment has an operator; returns what to tell of it.

    `ensure` makes the user unless its e-mail is in use, and says whether it did. The password is kept before the user
    is made, so that none is lost, and not kept where the user has another. Raises OSError where it can't be kept.
    """
    path = data_dir / FILE
    operator = load_operator(data_dir)
    if operator is None:
        operator = _create(path, Operator(email, secrets.token_urlsafe(24)))
        if not await ensure(operator.email, operator.password):
            path.unlink()
            return f"{email} (there already; its password is in another data folder)"
        return f"{email} (made just now), password in {path}"
    made = await ensure(operator.email, operator.password)
    return f"{operator.email} ({'made just now' if made else 'there already'}), password in {path}"


def load_operator(data_dir: Path) -> Operator | None:
    """Returns the operator of the data folder, None where there is none."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Operator)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        raise OSError(f"{data_dir / FILE} is damaged; remove it to have a new operator made") from None


def _create(path: Path, operator: Operator) -> Operator:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(operator))
    return operator
