"""Settings come from the environment; a wrong one is named, and no value is ever printed."""

from pathlib import Path

import pytest

from entrypoints.settings import Settings, SettingsError, read_settings, unknown_variables

SECRET = "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t"


@pytest.fixture(autouse=True)
def _empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHATBACK_ENVIRONMENT", "development")


def with_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_settings()


def complaint(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsError) as error:
        with_environment(monkeypatch, **variables)
    return str(error.value)


def test_defaults_serve_one_developer() -> None:
    settings = read_settings()
    assert (settings.grpc_host, settings.grpc_port) == ("127.0.0.1", 50051)
    assert not settings.uses_openai


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_environment(monkeypatch, CHATBACK_GRPC_PORT="50077").grpc_port == 50077


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_environment(monkeypatch, CHATBACK_GRPC_PORT="").grpc_port == 50051


def test_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "chatback.env").write_text("CHATBACK_GRPC_PORT=50078\n")
    assert read_settings().grpc_port == 50078


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "chatback.env").write_text("CHATBACK_GRPC_PORT=50078\n")
    assert with_environment(monkeypatch, CHATBACK_GRPC_PORT="50077").grpc_port == 50077


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATBACK_ENVIRONMENT", "staging-x7q"),
        ("CHATBACK_SECRET_KEY", "x7q"),
        ("CHATBACK_OPERATOR_EMAIL", "x7q"),
        ("CHATBACK_REGISTRATION_OPEN", "x7q"),
        ("CHATBACK_WORKERS", "0"),
        ("CHATBACK_WORKERS", "777"),
        ("CHATBACK_GRPC_PORT", "65999"),
        ("CHATBACK_GRPC_PORT", "x7q"),
        ("CHATBACK_REFLECTION", "x7q"),
        ("CHATBACK_MAX_REQUEST_MB", "999"),
        ("CHATBACK_DRAIN_SECONDS", "-77"),
        ("CHATBACK_DATABASE_POOL_SIZE", "-77"),
        ("CHATBACK_DATABASE_TIMEOUT_SECONDS", "-77"),
        ("CHATBACK_OPENAI_BASE_URL", "ftp://x7q"),
        ("CHATBACK_CHAT_MODEL", " , "),
        ("CHATBACK_CONTEXT_TOKENS", "77"),
        ("CHATBACK_MODEL_CONNECT_SECONDS", "-77"),
        ("CHATBACK_MODEL_FIRST_TOKEN_SECONDS", "-77"),
        ("CHATBACK_MODEL_GAP_SECONDS", "-77"),
        ("CHATBACK_ACCESS_TOKEN_MINUTES", "777"),
        ("CHATBACK_REFRESH_TOKEN_DAYS", "777"),
        ("CHATBACK_PASSWORD_HASH_COST", "77"),
        ("CHATBACK_CALLS_PER_SECOND", "-77"),
        ("CHATBACK_CALLS_BURST", "-77"),
        ("CHATBACK_OPEN_STREAMS", "-77"),
        ("CHATBACK_LOG_LEVEL", "x7q"),
        ("CHATBACK_LOG_FORMAT", "x7q"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    text = complaint(monkeypatch, **{variable: value})
    assert text.startswith(f"{variable}: ")
    assert value not in text


def test_all_wrong_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, CHATBACK_GRPC_PORT="x7q", CHATBACK_LOG_LEVEL="x7q")
    assert "CHATBACK_GRPC_PORT" in text
    assert "CHATBACK_LOG_LEVEL" in text


def test_production_needs_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, CHATBACK_ENVIRONMENT="production")
    assert text.startswith("CHATBACK_SECRET_KEY is needed in production")


def test_production_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATBACK_ENVIRONMENT")
    assert "CHATBACK_SECRET_KEY" in complaint(monkeypatch)


def test_a_short_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, CHATBACK_ENVIRONMENT="production", CHATBACK_SECRET_KEY="hunter2")
    assert "CHATBACK_SECRET_KEY" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATBACK_SECRET_KEY", SECRET),
        ("CHATBACK_OPENAI_API_KEY", SECRET),
        ("OPENAI_API_KEY", SECRET),
        ("CHATBACK_DATABASE_URL", f"postgresql://me:{SECRET}@db/chatback"),
        ("CHATBACK_REDIS_URL", f"redis://:{SECRET}@cache"),
    ],
)
def test_secrets_do_not_show_in_a_representation(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    assert SECRET not in repr(with_environment(monkeypatch, **{variable: value}))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATBACK_DATABASE_URL", f"mysql://me:{SECRET}@db/chatback"),
        ("CHATBACK_DATABASE_URL", f"postgresql://me:{SECRET}@db:port/chatback"),
        ("CHATBACK_REDIS_URL", f"http://:{SECRET}@cache"),
        ("CHATBACK_REDIS_URL", SECRET),
        ("CHATBACK_OPENAI_BASE_URL", "http://[::1"),
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}: should be a URL") as refusal:
        with_environment(monkeypatch, **{variable: value})
    assert SECRET not in str(refusal.value)


def test_settings_cannot_be_changed() -> None:
    settings = read_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.grpc_port = 1


@pytest.mark.parametrize(
    ("environment", "chosen", "is_open"),
    [
        ("development", "", True),
        ("development", "false", False),
        ("production", "", False),
        ("production", "true", True),
    ],
)
def test_registration_and_reflection_are_open_in_development_or_by_choice(
    monkeypatch: pytest.MonkeyPatch, environment: str, chosen: str, is_open: bool
) -> None:
    settings = with_environment(
        monkeypatch,
        CHATBACK_ENVIRONMENT=environment,
        CHATBACK_SECRET_KEY=SECRET,
        CHATBACK_REGISTRATION_OPEN=chosen,
        CHATBACK_REFLECTION=chosen,
    )
    assert (settings.opens_registration, settings.serves_reflection) == (is_open, is_open)


def test_models_are_listed_the_default_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_environment(monkeypatch, CHATBACK_CHAT_MODEL=" small, large ,").chat_models == ("small", "large")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATBACK_OPENAI_API_KEY", "key"),
        ("OPENAI_API_KEY", "key"),
        ("CHATBACK_OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    ],
)
def test_a_key_or_an_address_configures_a_language_model(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert with_environment(monkeypatch, **{variable: value}).uses_openai


def test_our_own_key_goes_before_the_common_one(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_environment(monkeypatch, CHATBACK_OPENAI_API_KEY="ours", OPENAI_API_KEY="common")
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "ours"


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^CHATBACK_OPENAI_API_KEY") as refusal:
        with_environment(monkeypatch, CHATBACK_OPENAI_API_KEY=f"{SECRET}\n{SECRET}")
    assert SECRET not in str(refusal.value)


def test_a_file_of_settings_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "chatback.env").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"config/chatback\.env"):
        read_settings()


def test_names_that_no_setting_has_are_told_with_what_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "chatback.env").write_text("CHATBACK_DATABASE_ULR=x\nOTHER=1\nCHATBACK_WORKERS=2\n")
    monkeypatch.setenv("CHATBACK_GRPC_PROT", "1")
    monkeypatch.setenv("CHATBACK_NOTHING_LIKE_IT", "1")
    assert unknown_variables() == [
        "CHATBACK_DATABASE_ULR (did you mean CHATBACK_DATABASE_URL?)",
        "CHATBACK_GRPC_PROT (did you mean CHATBACK_GRPC_PORT?)",
        "CHATBACK_NOTHING_LIKE_IT",
    ]


def test_names_of_settings_of_tests_and_of_examples_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GRPC_PORT", "TEST_SERVERS", "FAULT_SEED", "PASSWORD", "TARGET", "URL", "EMAIL"):
        monkeypatch.setenv(f"CHATBACK_{name}", "1")
    assert unknown_variables() == []


def test_another_process_has_the_same_settings_whatever_the_file_says_by_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "chatback.env"
    file.write_text(f"CHATBACK_SECRET_KEY={SECRET}\nCHATBACK_DRAIN_SECONDS=2.5\nCHATBACK_ENVIRONMENT=production\n")
    settings = with_environment(monkeypatch, OPENAI_API_KEY=SECRET, CHATBACK_REFLECTION="true")
    file.write_text("CHATBACK_DRAIN_SECONDS=7\nCHATBACK_WORKERS=5\n")
    monkeypatch.delenv("OPENAI_API_KEY")
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    assert read_settings(file=None) == settings
