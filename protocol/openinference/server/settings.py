"""Settings classes as the one source of flags, environment variables, `--help` and defaults."""

import argparse
import copy
import sys
from collections.abc import Sequence
from types import NoneType
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "KEEPWARM_"
LIST = tuple[str, ...]
# A model's name, which is a part of URLs.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
# Flags of KServe whose user must not believe that they have an effect.
REFUSED = ("ssl_certfile", "ssl_keyfile")


class ServerSettings(BaseSettings):
    """What every keepwarm server can be told; a flag wins over its environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        # Variables hold plain text; a list in one is split by `_listed`, not read as JSON.
        enable_decoding=False,
    )
    command: ClassVar[str] = "keepwarm"
    description: ClassVar[str] = "A keepwarm server."

    model_name: str = Field(
        "model",
        description="Name under which the model is served.",
        pattern=NAME,
    )
    http_port: int = Field(8080, description="Port of REST.", ge=1, le=65535)
    grpc_port: int = Field(8081, description="Port of gRPC.", ge=1, le=65535)
    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 (a pod's server)
    max_body_bytes: int = Field(
        4 * 2**20,
        description="Largest request body in bytes, before and after decompression.",
        ge=1024,
    )
    grpc_max_receive_message_length: int = Field(
        8 * 2**20, description="Largest gRPC message received, in bytes.", ge=1024
    )
    grpc_max_send_message_length: int = Field(
        8 * 2**20, description="Largest gRPC message sent, in bytes.", ge=1024
    )
    grpc_max_connection_age_s: float | None = Field(
        None,
        description="Longest life of a gRPC connection, in seconds, calls in flight excepted; "
        "clients then ask DNS again and find new pods. For a headless Service (Standard mode); "
        "None is no bound.",
        gt=0,
    )
    max_timeout_s: float = Field(
        300.0,
        description="Longest time a request may take, in seconds; a caller can only ask for less.",
        gt=0,
    )
    drain_s: float = Field(
        300.0,
        description="Longest time, in seconds, that requests in flight get after SIGTERM.",
        ge=0,
    )
    workers: int = Field(
        1,
        description="Accepted because KServe's controller passes it; one process always serves.",
        ge=1,
    )
    log_level: str = Field(
        "info", description="debug, info, warning or error.", pattern="^(debug|info|warning|error)$"
    )

    log_format: Literal["text", "json"] = Field(
        "text",
        description="text, or json: an object a line, with the request's id, a line for each "
        "generation, and no text of a caller or an exception.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Collector of OpenTelemetry traces, by OTLP over gRPC, such as "
        "http://jaeger.monitoring:4317; https for TLS. Without one nothing is traced.",
        pattern=r"^https?://[^/\s]+$",
    )
    otlp_sample_ratio: float = Field(
        1.0,
        description="Share of traces that are kept, of those that begin here; who has begun a "
        "trace decides about it.",
        ge=0,
        le=1,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: ValidationInfo) -> Any:
        """A variable names the values of a repeatable flag with commas or white space between."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, str) and field.annotation == LIST:
            return tuple(value.replace(",", " ").split())
        return value

    @classmethod
    def from_args(
        cls, args: Sequence[str], *, parents: Sequence[argparse.ArgumentParser] = ()
    ) -> Self:
        """Settings from command-line flags, then environment variables, then defaults.

        `parents` bring flags of KServe that are accepted too; those that no field reads have no
        effect and are named on stderr. Prints a sentence and exits with status 2 on bad values.
        """
        parser = cls.parser(parents)
        given = vars(parser.parse_args(args))
        unread = sorted(set(given) - set(cls.model_fields))
        if refused := [name for name in unread if name in REFUSED]:
            parser.error(f"--{refused[0]}: TLS is not served here; end it at the gateway")
        if unread:
            flags = ", ".join(f"--{name}" for name in unread)
            print(f"these flags of KServe have no effect here: {flags}", file=sys.stderr)
        try:
            return cls(**{name: given[name] for name in given if name in cls.model_fields})
        except ValidationError as error:
            parser.error("; ".join(cls._sentence(problem) for problem in error.errors()))

    @classmethod
    def _sentence(cls, problem: ErrorDetails) -> str:
        if not problem["loc"]:
            return problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0])
        if problem["type"] == "missing":
            return f"--{name} is required"
        # A field without repr holds a secret.
        field = cls.model_fields.get(name)
        got = f" (got {problem['input']!r:.60})" if field is None or field.repr else ""
        return f"--{name}: {problem['msg']}{got}"

    @classmethod
    def parser(cls, parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:
        """The argument parser: one flag a field, with its environment variable and default."""
        parser = argparse.ArgumentParser(
            prog=cls.command, description=cls.description, allow_abbrev=False
        )
        for name, field in cls.model_fields.items():
            default = "" if field.is_required() else f" Default: {field.default!r}."
            parser.add_argument(
                f"--{name}",
                help=f"{field.description}{default} [{ENV_PREFIX}{name.upper()}]".replace(
                    "%", "%%"
                ),
                metavar=_metavar(field.annotation),
                **_action(field.annotation),
            )
        accepted = parser.add_argument_group("flags of KServe that are accepted without effect")
        for parent in parents:
            for action in parent._actions:
                if action.dest not in cls.model_fields:
                    accepted._add_action(copy.copy(action))
        # Only what was given may win over the environment.
        for action in parser._actions:
            action.default = argparse.SUPPRESS
        return parser

    @classmethod
    def markdown(cls) -> str:
        """The settings as a Markdown table: flag, type, default, what it does."""
        rows = [
            f"| `--{name}` | {_metavar(field.annotation).lower()} "
            f"| {'required' if field.is_required() else f'`{field.default}`'} "
            f"| {field.description} |"
            for name, field in cls.model_fields.items()
        ]
        return "\n".join(["| flag | type | default | |", "|---|---|---|---|", *rows])


def _action(annotation: Any) -> dict[str, Any]:
    """A boolean flag may stand alone: `--flag` is `--flag true`. A list's flag is repeatable."""
    if annotation in (bool, bool | None):
        return {"nargs": "?", "const": "true"}
    return {"action": "append"} if annotation == LIST else {}


def _metavar(annotation: Any) -> str:
    if annotation == LIST:
        return "STR, REPEATABLE"
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if len(kinds) == 1 and NoneType in get_args(annotation):
        (annotation,) = kinds
    return str(getattr(annotation, "__name__", annotation)).upper()
