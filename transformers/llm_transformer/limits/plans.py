"""Plans: what the callers of a plan may use, from one YAML file with a schema.

A plan names only what it limits. Docs: docs/plans.md; schema: docs/plans.schema.json.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from llm_transformer import yaml_file
from llm_transformer.limits import rules
from llm_transformer.yaml_file import Strict, UnusableFileError

ROUTES: Final = (
    "infer",
    "generate",
    "generate_stream",
    "completions",
    "chat_completions",
    "ModelInfer",
    "ModelStreamInfer",
)
# The default burst of requests, as a part of their limit.
_TENTH: Final = 0.1


class UnusablePlansError(UnusableFileError):
    """A plans file that cannot be meant; the message says where and why."""


class Rate(Strict):
    """So many in a time, and so many at once."""

    limit: int = Field(description="How many in `per_s` seconds, in the long run.", ge=1)
    per_s: float = Field(60.0, description="The time in seconds.", gt=0, le=86400)
    burst: int | None = Field(
        None,
        description="How many at once after a pause: in any `per_s` seconds at most limit + burst. "
        "Default: a tenth of `limit` for requests (at least 1), all of it for tokens.",
        ge=1,
    )


class Plan(Strict):
    """What one key of the plan may use."""

    requests: Rate | None = Field(None, description="Requests of a key.")
    requests_per_address: Rate | None = Field(
        None,
        description="Requests of a client's IP address (IPv6: /64), over all keys of its tenant.",
    )
    concurrent: int | None = Field(
        None, description="Generations of a key at a time, streamed or whole.", ge=1
    )
    tokens: Rate | None = Field(
        None,
        description="Tokens of a key, prompts' and answers' together. `burst` is also the most "
        "that one request may take.",
    )
    max_prompt_tokens: int | None = Field(
        None, description="Longest prompt in tokens, counted by the predictor.", ge=1
    )
    max_tokens: int | None = Field(
        None, description="Longest answer in tokens; more is asked for in vain.", ge=1
    )
    max_tokens_by_route: dict[str, int] = Field(
        {},
        description=f"The same for single routes: {', '.join(ROUTES)}.",
        json_schema_extra={
            "propertyNames": {"enum": list(ROUTES)},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
    )

    def limits(self) -> rules.Limits:
        """The limits as the meters count."""
        return rules.Limits(
            _rule(self.requests, _TENTH),
            _rule(self.requests_per_address, _TENTH),
            self.concurrent,
            _rule(self.tokens, 1.0),
        )

    def longest_answer(self, route: str) -> int | None:
        """The longest answer on `route` in tokens; None is no bound."""
        bounds = [
            bound
            for bound in (self.max_tokens, self.max_tokens_by_route.get(route))
            if bound is not None
        ]
        return min(bounds, default=None)


class Plans(Strict):
    """A plans file."""

    plans: dict[str, Plan] = Field(
        description="Plans by name. `anonymous` is that of callers without a key.", min_length=1
    )

    def check_names(self, names: Iterable[str]) -> None:
        """Raises UnusablePlansError unless each name is a plan's: else it would limit nothing."""
        missing = sorted(set(names) - set(self.plans))
        if missing:
            raise UnusablePlansError(
                f"there is no plan {missing[0]!r:.60}; there are: {', '.join(sorted(self.plans))}"
            )


def read(path: Path) -> Plans:
    """The plans in a YAML file; raises UnusablePlansError."""
    try:
        plans = yaml_file.read(path, Plans)
    except UnusableFileError as error:
        raise UnusablePlansError(str(error)) from None
    for name, plan in plans.plans.items():
        for route, bound in plan.max_tokens_by_route.items():
            if route not in ROUTES or bound < 1:
                raise UnusablePlansError(
                    f"{path}: plans.{name}.max_tokens_by_route.{route}: must be one of "
                    f"{', '.join(ROUTES)}, with tokens from 1"
                )
    return plans


def schema() -> dict[str, Any]:
    """The JSON schema of a plans file (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "keepwarm plans",
        **{name: value for name, value in Plans.model_json_schema().items() if name != "title"},
    }


def _rule(rate: Rate | None, default_burst: float) -> rules.Rate | None:
    if rate is None:
        return None
    burst = max(1, int(rate.limit * default_burst)) if rate.burst is None else rate.burst
    return rules.Rate(rate.limit, rate.per_s, burst)
