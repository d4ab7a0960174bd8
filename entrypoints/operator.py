"""The first user of a deployment: made once, kept where only its owner reads it."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

FILE = "operator.json"


@dataclass(frozen=True, slots=True)
class Operator:
    """E-mail and password of the bootstrap operator."""

    email: str
    password: str = field(repr=False)


def load_or_create_operator(data_dir: Path, email: str) -> Operator:
    """Returns the operator of the data folder, made now if there is none. Raises OSError where it can't be kept."""
    return load_operator(data_dir) or _create(data_dir / FILE, Operator(email, secrets.token_urlsafe(24)))


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
