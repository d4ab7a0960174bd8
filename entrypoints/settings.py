"""All settings, read once from the environment into one frozen object.

Each field is the variable CHATBACK_<NAME>; config/chatback.env.example lists them with their meaning.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from domain.errors import InvalidField
from domain.identity import email
from entrypoints.errors import OperatorError

FILE = "config/chatback.env"
MOST_WORKERS = 256
SPARE_CONNECTIONS = 5
ELSEWHERE = re.compile(r"chatback_((test|fault)_.*|target|url|email|password)")
"""Variables of our tests and of the examples for clients."""
_SCHEMES = {
    "database_url": ("postgresql", "postgres", "postgresql+asyncpg"),
    "redis_url": ("redis", "rediss", "unix"),
}
_ORIGINS = r"^\s*(\*|https?://[^\s/,]+(\s*,\s*https?://[^\s/,]+)*)\s*$"


class Environment(StrEnum):
    """Development opens registration and reflection and needs no secret; production does not."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SettingsError(OperatorError):
    """A setting is wrong or missing; the text names the variable and never prints its value."""


class Settings(BaseSettings):
    """What the operator chose; defaults serve one developer on one machine."""

    model_config = SettingsConfigDict(
        env_prefix="CHATBACK_", env_file=FILE, frozen=True, extra="ignore", env_ignore_empty=True
    )

    environment: Environment = Environment.PRODUCTION
    data_dir: Path = Path(".chatback")
    secret_key: SecretStr | None = Field(default=None, min_length=32)
    operator_email: str = "operator@localhost"
    registration_open: bool | None = None
    workers: int = Field(default=1, ge=1, le=MOST_WORKERS)

    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(default=50051, ge=0, le=65535)
    reflection: bool | None = None
    max_request_mb: int = Field(default=4, ge=1, le=64)
    drain_seconds: float = Field(default=10, ge=0, le=3600)

    rest_host: str = "127.0.0.1"
    rest_port: int | None = Field(default=None, ge=0, le=65535)
    cors_origins: Annotated[str, StringConstraints(pattern=_ORIGINS)] | None = None
    trusted_proxies: str | None = None

    database_url: SecretStr | None = None
    database_pool_size: int = Field(default=10, ge=2, le=1000)
    database_timeout_seconds: float = Field(default=10, gt=0, le=300)
    redis_url: SecretStr | None = None

    openai_api_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("CHATBACK_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    openai_base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")] | None = None
    chat_model: Annotated[str, StringConstraints(pattern=r"[^\s,]")] = "gpt-4.1-mini"
    context_tokens: int = Field(default=32_768, ge=512, le=10_000_000)
    model_connect_seconds: float = Field(default=5, gt=0, le=300)
    model_first_token_seconds: float = Field(default=30, gt=0, le=3600)
    model_gap_seconds: float = Field(default=20, gt=0, le=3600)

    access_token_minutes: float = Field(default=10, ge=1, le=60)
    refresh_token_days: float = Field(default=30, gt=0, le=400)
    password_hash_cost: int = Field(default=12, ge=4, le=16)

    calls_per_second: float = Field(default=200, gt=0)
    calls_burst: int = Field(default=2000, ge=1)
    open_streams: int = Field(default=2000, ge=1)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @field_validator("database_url", "redis_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        schemes = _SCHEMES[str(info.field_name)]
        if value is not None and not _is_url(value.get_secret_value(), schemes):
            raise ValueError(f"should be a URL that begins with {schemes[0]}://")
        return value

    @field_validator("operator_email")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return email(value)
        except InvalidField as error:
            raise ValueError(error.rule) from None

    @field_validator("openai_base_url")
    @classmethod
    def _is_an_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not _is_url(value, ("http", "https")):
            raise ValueError("should be a URL that begins with http:// or https://")
        return value

    @field_validator("openai_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("should hold visible ASCII characters only")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _names_networks(cls, value: str | None) -> str | None:
        try:
            all(ip_network(each) for each in _listed(value))
        except ValueError:
            raise ValueError("should be IP addresses and networks with commas between them") from None
        return value

    @model_validator(mode="after")
    def _needs_a_secret_in_production(self) -> Self:
        if not self.is_development and self.secret_key is None:
            raise ValueError("CHATBACK_SECRET_KEY is needed in production: at least 32 random characters")
        return self

    @property
    def is_development(self) -> bool:
        """Says whether unsealed keys, open registration and reflection are the default."""
        return self.environment is Environment.DEVELOPMENT

    @property
    def opens_registration(self) -> bool:
        """Says whether anyone may register: by default in development only."""
        return self.is_development if self.registration_open is None else self.registration_open

    @property
    def serves_reflection(self) -> bool:
        """Says whether the contract can be read from the port: by default in development only."""
        return self.is_development if self.reflection is None else self.reflection

    @property
    def serves_rest_on(self) -> int:
        """The REST port. Whoever lets gRPC have any free port gets one for REST too."""
        if self.rest_port is not None:
            return self.rest_port
        return 8080 if self.grpc_port else 0

    @property
    def connections(self) -> int:
        """How many connections one process may have to PostgreSQL: the pool, and one each for what must not wait."""
        return self.database_pool_size + SPARE_CONNECTIONS

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins whose pages may call over REST."""
        return _listed(self.cors_origins)

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies whose word on a caller's address is taken."""
        return _listed(self.trusted_proxies)

    @property
    def chat_models(self) -> tuple[str, ...]:
        """The configured models, the default first."""
        return _listed(self.chat_model)

    @property
    def uses_openai(self) -> bool:
        """Says whether a language model is configured; without one the extractive model answers."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    def variables(self) -> dict[str, str]:
        """Returns the variables that give another process these settings, whatever the file says by then."""
        chosen = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            f"CHATBACK_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in chosen.items()
            if value is not None
        }


def _listed(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def read_settings(file: str | None = FILE) -> Settings:
    """Returns the settings of the environment and of the file. Raises SettingsError with one line for each."""
    try:
        return Settings(_env_file=file)  # type: ignore[call-arg]  # one of its own, that no field is
    except UnicodeDecodeError:
        raise SettingsError(f"{FILE} is not text in UTF-8") from None
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(detail["loc"], detail["msg"]) for detail in error.errors())) from None


def unknown_variables() -> list[str]:
    """Returns the variables of environment and file that look like settings and are none, each with what may be meant.

    They are no error: Kubernetes, for one, makes variables out of a service's name.
    """
    known = {f"chatback_{name}" for name in Settings.model_fields}
    given = {*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars}
    unknown = sorted(name for name in given - known if name.startswith("chatback_") and not ELSEWHERE.fullmatch(name))
    return [f"{name.upper()}{_suggestion(name, known)}" for name in unknown]


def _suggestion(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {near[0].upper()}?)" if near else ""


def _is_url(value: str, schemes: Collection[str]) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in schemes and url.port != 0
    except ValueError:
        return False


def _complaint(place: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not place:
        return message
    name = str(place[0]).upper()
    variable = name if name.startswith("CHATBACK_") else f"CHATBACK_{name}"
    return f"{variable}: {message[0].lower()}{message[1:]}"
