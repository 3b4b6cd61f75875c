"""What the controller can be told: flags, environment variables and defaults from one class."""

import socket
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "KEEPWARM_"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _namespace() -> str:
    return _SERVICE_ACCOUNT.read_text().strip() if _SERVICE_ACCOUNT.is_file() else "default"


class ControllerSettings(BaseSettings):
    """The warm-pool controller; a flag wins over its environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m keepwarm.warmpool",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    namespace: str = Field(
        default_factory=_namespace,
        description="Namespace of the Lease of the leader election. Default: the pod's own.",
    )
    lease_name: str = Field(
        "keepwarm-warmpool",
        description="Name of that Lease; the Role in rbac.yaml names it too.",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    )
    identity: str = Field(
        default_factory=socket.gethostname,
        description="Name of this replica in the Lease and in Events. Default: the host's.",
    )
    lease_s: int = Field(
        15, description="Seconds after which a silent leader is replaced.", ge=3, le=300
    )
    host: str = Field("0.0.0.0", description="Address of the HTTP server.")  # noqa: S104 (a pod's server)
    port: int = Field(
        8080,
        description="Port of the HTTP server: /healthz, /readyz, /metrics and wakes.",
        ge=0,
        le=65535,
    )
    wake_audience: str = Field(
        "keepwarm-warmpool",
        description="Audience that a token must be made for to ask for a wake over HTTP; empty"
        " turns that route off.",
    )
    workers: int = Field(
        16,
        description="WarmPools that are worked on at once; mostly they wait for webhooks.",
        ge=1,
        le=64,
    )
    writes_per_second: float = Field(
        100, description="Writes to the API server a second, on average.", gt=0, le=1000
    )
    write_burst: int = Field(
        500, description="Writes that may follow at once after a pause.", ge=1, le=10000
    )
    log_level: str = Field(
        "info", description="debug, info, warning or error.", pattern="^(debug|info|warning|error)$"
    )

    @classmethod
    def markdown(cls) -> str:
        """The settings as a Markdown table: flag, type, default, what it does."""
        rows = [
            f"| `--{name.replace('_', '-')}` | {field.annotation.__name__} "
            f"| {'' if field.default_factory else f'`{field.default}`'} | {field.description} |"
            for name, field in cls.model_fields.items()
            if field.annotation
        ]
        return "\n".join(["| flag | type | default | |", "|---|---|---|---|", *rows])
