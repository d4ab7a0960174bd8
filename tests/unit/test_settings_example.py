"""config/chatback.env.example holds every setting, with its default."""

import re
from pathlib import Path

import pytest

from entrypoints.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "config" / "chatback.env.example"
SHOWN = dict(re.findall(r"^# CHATBACK_([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))


def test_the_example_names_every_setting_and_no_other() -> None:
    assert {name.lower() for name in SHOWN} == set(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is not None])
def test_the_example_shows_the_default(name: str) -> None:
    default = Settings.model_fields[name].default
    assert SHOWN[name.upper()] == (f"{default:g}" if isinstance(default, float) else str(default))
