"""Which predictor answers for which model name, and under which name it knows that model.

A table of one line from `--model_name` and `--predictor_host`, or what `--models_file` says:
several InferenceServices, and LoRA adapters, which are further names of one predictor. Docs:
docs/models.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from llm_transformer import yaml_file
from llm_transformer.settings import PREDICTOR, TransformerSettings
from llm_transformer.yaml_file import UnusableFileError
from openinference.server.settings import NAME


class Entry(yaml_file.Strict):
    """One name of a models file."""

    predictor: str | None = Field(
        default=None, description="HOST or HOST:PORT. Default: --predictor_host.", pattern=PREDICTOR
    )
    service: str | None = Field(
        default=None,
        description="InferenceService in the namespace of --predictor_host, in place of its "
        "predictor's host.",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    )
    predictor_name: str | None = Field(
        default=None,
        description="What the predictor calls it. Default: the same name.",
        pattern=NAME,
    )


class ModelsFile(yaml_file.Strict):
    """A models file."""

    models: dict[str, Entry | None] = Field(
        description="What is served, by the name that callers use.", min_length=1
    )


@dataclass(frozen=True, slots=True)
class PredictorModels:
    """One predictor (HOST:PORT), and its own name of each name that it answers for, in order."""

    target: str
    names: Mapping[str, str]

    @property
    def first(self) -> str:
        """The name that stands for the predictor: asked when it is woken, told in metrics."""
        return next(iter(self.names))


@dataclass(frozen=True, slots=True)
class ModelTable:
    """What is served: each name belongs to exactly one predictor."""

    names: tuple[str, ...]
    predictors: tuple[PredictorModels, ...]

    @property
    def scope(self) -> str:
        """What tells these predictors' kept answers from those of others in the same Redis."""
        return ",".join(sorted(each.target for each in self.predictors))


def model_table(settings: TransformerSettings) -> ModelTable:
    """The table that the settings mean; raises UnusableFileError for what cannot be meant."""
    if settings.models_file is None:
        target = settings.target(settings.predictor_host or "")
        name = settings.model_name
        return ModelTable((name,), (PredictorModels(target, {name: name}),))
    path = Path(settings.models_file)
    names: dict[str, dict[str, str]] = {}
    models = yaml_file.read(path, ModelsFile).models
    for name, entry in models.items():
        try:
            host = _host(name, entry or Entry(), settings.predictor_host)
        except ValueError as error:
            raise UnusableFileError(f"{path}: models.{name}: {error}") from None
        known_as = (entry and entry.predictor_name) or name
        names.setdefault(settings.target(host), {})[name] = known_as
    return ModelTable(tuple(models), tuple(PredictorModels(*each) for each in names.items()))


def _host(name: str, entry: Entry, own: str | None) -> str:
    """The predictor's host, maybe with a port; raises ValueError."""
    if not re.fullmatch(NAME, name):
        raise ValueError("a name is letters, digits, '.', '_' and '-'")
    if entry.predictor is not None:
        if entry.service is not None:
            raise ValueError("has both predictor and service")
        return entry.predictor
    if own is None:
        raise ValueError("needs predictor, for there is no --predictor_host")
    if entry.service is None:
        return own
    # KServe's controller injects NAME-predictor.NAMESPACE; Knative's gateway knows no shorter name.
    _, dot, namespace = own.partition(".")
    if not dot:
        raise ValueError(f"service needs a --predictor_host with a namespace, got {own}")
    return f"{entry.service}-predictor.{namespace}"
