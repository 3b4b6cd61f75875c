"""The transformer's settings."""

from typing import ClassVar, Literal

from pydantic import Field

from openinference.server.settings import ServerSettings


class TransformerSettings(ServerSettings):
    """Flags that KServe's controller injects keep KServe's names."""

    command: ClassVar[str] = "python -m llm_transformer"
    description: ClassVar[str] = (
        "keepwarm's transformer: V2, generate and OpenAI in front of a V2 gRPC predictor."
    )

    predictor_host: str = Field(
        description="Host of the predictor, with or without a port (80, or 443 with TLS).",
        pattern=r"^[A-Za-z0-9._-]+(:[0-9]{1,5})?$",
    )
    predictor_protocol: Literal["grpc-v2"] = Field(
        "grpc-v2", description="Protocol spoken to the predictor; only grpc-v2."
    )
    predictor_use_ssl: bool = Field(False, description="Speak TLS to the predictor.")
    predictor_request_timeout_seconds: float = Field(
        600.0, description="Longest time a call to the predictor may take, in seconds.", gt=0
    )
    enable_predictor_health_check: bool = Field(
        False,
        description="Be ready only while the predictor is; each probe then reaches the predictor, "
        "so never with scale to zero.",
    )

    @property
    def predictor_target(self) -> str:
        """HOST:PORT of the predictor."""
        if ":" in self.predictor_host:
            return self.predictor_host
        return f"{self.predictor_host}:{443 if self.predictor_use_ssl else 80}"

    @property
    def longest_request_s(self) -> float:
        """The bound on a whole request, in seconds."""
        return min(self.max_timeout_s, self.predictor_request_timeout_seconds)
