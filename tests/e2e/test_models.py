"""The models that the running service offers."""

from __future__ import annotations

from chatback.v1 import model_service_pb2 as pb
from tests.e2e.caller import Client, Person, failure
from tests.e2e.conftest import CONTEXT_TOKENS


async def test_the_configured_models_are_listed_the_default_first(me: Person) -> None:
    models = (await me.models.ListModels(pb.ListModelsRequest())).models
    assert [(model.name, model.is_default) for model in models] == [("model-1", True), ("model-2", False)]
    assert {model.context_window_tokens for model in models} == {CONTEXT_TOKENS}


async def test_the_models_are_not_for_everybody(nobody: Client) -> None:
    assert (await failure(nobody.models.ListModels(pb.ListModelsRequest()))).reason == "TOKEN_INVALID"
