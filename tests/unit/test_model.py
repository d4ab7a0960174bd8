"""The models that a deployment offers."""

import pytest

from domain.errors import ModelNotFound
from domain.model import Model, ModelCatalog

CATALOG = ModelCatalog([Model("small", 8_192, is_default=True), Model("large", 128_000, is_default=False)])


def test_no_name_is_the_default_model() -> None:
    assert CATALOG.get("").name == "small"


def test_a_model_is_found_by_its_name() -> None:
    assert CATALOG.get("large").context_tokens == 128_000


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ModelNotFound) as refusal:
        CATALOG.get("huge")
    assert refusal.value.metadata == {"models": "small, large"}


def test_a_model_s_prompt_leaves_room_for_the_answer() -> None:
    assert CATALOG.get("small").prompt_budget == 6_144
