"""A YAML file read into a pydantic model, and what is wrong with it as one sentence."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Model = TypeVar("Model", bound="Strict")


class UnusableFileError(ValueError):
    """A file that cannot be meant; the message says where and why."""


class Strict(BaseModel):
    """What such a file holds: no member that is not known, no text for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read(path: Path, model: type[Model]) -> Model:
    """The file's content; raises UnusableFileError."""
    try:
        with path.open(encoding="utf-8") as file:
            content: Any = yaml.safe_load(file)
        return model.model_validate(content)
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFileError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UnusableFileError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        raise UnusableFileError(f"{path}: {_sentences(error)}") from None


def _sentences(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
        for problem in error.errors()
    )
