"""The language models that a deployment offers."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import ModelNotFound
from domain.prompt import prompt_budget


@dataclass(frozen=True, slots=True)
class Model:
    """A configured model. `context_tokens` bounds prompt and answer together."""

    name: str
    context_tokens: int
    is_default: bool
    capabilities: Sequence[str] = ("chat",)

    @property
    def prompt_budget(self) -> int:
        """Returns how many tokens history and question may take."""
        return prompt_budget(self.context_tokens)


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """The configured models, the default first."""

    models: Sequence[Model]

    def get(self, name: str) -> Model:
        """Returns the model of this name, the default for an empty one. Raises ModelNotFound."""
        for model in self.models:
            if name in ("", model.name):
                return model
        raise ModelNotFound(", ".join(model.name for model in self.models))
