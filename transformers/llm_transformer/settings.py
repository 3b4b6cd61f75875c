"""The transformer's settings."""

from typing import ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from openinference.server.settings import LIST, ServerSettings

PREDICTOR: Final = r"^[A-Za-z0-9._-]+(:[0-9]{1,5})?$"


class TransformerSettings(ServerSettings):
    """Flags that KServe's controller injects keep KServe's names."""

    command: ClassVar[str] = "python -m llm_transformer"
    description: ClassVar[str] = (
        "keepwarm's transformer: V2, generate and OpenAI in front of a V2 gRPC predictor."
    )

    predictor_host: str | None = Field(
        None,
        description="Host of the predictor, with or without a port (80, or 443 with TLS). Required "
        "unless --models_file names every predictor.",
        pattern=PREDICTOR,
    )
    models_file: str | None = Field(
        None,
        description="YAML file that routes model names to predictors and adapters "
        "(docs/models.md); it then says what is served, not --model_name. Read at the start.",
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

    predictor_idle_s: float = Field(
        60.0,
        description="Silence, in seconds, after which the predictor may have gone to zero: one "
        "probe then goes ahead of the requests. Knative's stable window; 0 is never.",
        ge=0,
    )
    wake_probes: int = Field(
        1,
        description="Probes at a time during a start, at most: one for each request that is held, "
        "which Knative counts, so that a burst from zero starts as many predictors as it needs at "
        "once. With 1 it starts one, and the others when that one is full.",
        ge=1,
        le=1000,
    )
    unreachable_hold_s: float = Field(
        15.0,
        description="Longest time, in seconds, that callers are held while nothing answers at the "
        "predictor's address. While a predictor starts they are held to their own deadline.",
        ge=0,
    )
    expected_start_s: float = Field(
        60.0,
        description="Start time of the predictor, in seconds, to tell callers until one has been "
        "measured.",
        gt=0,
    )
    predictor_concurrency: int = Field(
        64,
        description="Sequences at the predictor at a time, to begin with; it then grows and "
        "shrinks with what the predictor can take.",
        ge=1,
        le=16384,
    )
    engine_queue_target_s: float = Field(
        0.2,
        description="Time in the engine's own queue, in seconds, above which fewer sequences are "
        "sent at a time.",
        gt=0,
    )
    queue_target_s: float = Field(
        2.0,
        description="Longest wait for the predictor, in seconds, once the queue stands; a caller "
        "who has waited so long gets a 503.",
        gt=0,
    )
    queue_interval_s: float = Field(
        1.0,
        description="The queue stands when its oldest has waited longer than half of "
        "--queue_target_s for so many seconds on end.",
        gt=0,
    )
    queue_longest_s: float = Field(
        30.0,
        description="Longest wait for the predictor, in seconds, while the queue does not stand, "
        "and for batch work always.",
        gt=0,
    )
    queue_most: int = Field(
        1000,
        description="Most requests that wait for the predictor, and most that are held while it "
        "starts.",
        ge=1,
    )
    keys_file: str | None = Field(
        None,
        description="File of API keys, as `keepwarm keys` writes it; read again when it changes.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Answer callers without a key, as tenant-less callers of the plan `anonymous`. "
        "Without a key file the transformer starts only with this.",
    )
    plans_file: str | None = Field(
        None,
        description="YAML file of plans (docs/plans.md), which say what the keys may use; without "
        "one nothing is limited. Read at the start.",
    )
    trusted_proxies: LIST = Field(
        (),
        description="Network of proxies, such as 10.0.0.0/8, whose X-Forwarded-For tells the "
        "client's address.",
    )
    template_tokens: int = Field(
        128,
        description="Most tokens that the model's chat template adds to a conversation beside its "
        "messages (a default system prompt, a date). They are reserved, and trued up.",
        ge=0,
    )
    cors_origins: LIST = Field(
        (),
        description="Origin whose pages may call from a browser, such as https://chat.example.org; "
        "* is every one.",
    )
    redis_url: str | None = Field(
        None,
        description="Redis shared by the replicas (docs/redis.md): redis://HOST, "
        "redis+sentinel://HOST,HOST/MASTER or redis+cluster://HOST,HOST; rediss for TLS. It may "
        "hold a password, so set the variable rather than the flag.",
        repr=False,
    )
    redis_timeout_s: float = Field(
        0.05,
        description="Longest time, in seconds, that a request waits for an answer of Redis.",
        gt=0,
    )
    redis_replicas: int = Field(
        1,
        description="Transformers that share the limits, until Redis has told how many there are.",
        ge=1,
    )
    stream_stall_s: float = Field(
        60.0,
        description="Longest silence, in seconds, of a predictor that has begun to stream; then "
        "the stream ends with an error.",
        gt=0,
    )
    cache: Literal["tenant", "shared", "off"] = Field(
        "tenant",
        description="Whom a kept answer is for: its own tenant, or shared by all; off keeps none.",
    )
    cache_bytes: int = Field(
        64 * 2**20,
        description="Memory, in bytes, for kept answers in this process.",
        ge=2**20,
    )
    cache_record_bytes: int = Field(
        2**20, description="Largest answer that is kept, in bytes.", ge=1024, le=2**26
    )
    cache_ttl_least_s: float = Field(
        300.0,
        description="Shortest life of a kept answer, in seconds; each is drawn between this and "
        "--cache_ttl_most_s.",
        gt=0,
        le=3600,
    )
    cache_ttl_most_s: float = Field(
        600.0, description="Longest life of a kept answer, in seconds.", gt=0, le=3600
    )
    cache_negative_ttl_s: float = Field(
        60.0,
        description="Life, in seconds, of a kept error that the same request always gets; 0 keeps "
        "none.",
        ge=0,
        le=3600,
    )
    cache_lease_s: float = Field(
        3.0,
        description="Time, in seconds, after which the other replicas stop waiting for the answer "
        "of one that has died.",
        ge=0.3,
        le=60,
    )
    cache_weights_id: str | None = Field(
        None,
        description="Weights id to assume of a predictor that tells none; without one its answers "
        "are not kept. Change it with the model.",
        pattern=r"^[\x21-\x7e]{1,128}$",
    )

    @model_validator(mode="after")
    def _lives_are_ordered(self) -> Self:
        if self.cache_ttl_least_s > self.cache_ttl_most_s:
            raise ValueError("--cache_ttl_least_s must be at most --cache_ttl_most_s")
        return self

    @model_validator(mode="after")
    def _has_a_predictor(self) -> Self:
        if self.predictor_host is None and self.models_file is None:
            raise ValueError("--predictor_host is required")
        return self

    def target(self, host: str) -> str:
        """HOST:PORT of a predictor at `host`, which may have a port."""
        return host if ":" in host else f"{host}:{443 if self.predictor_use_ssl else 80}"

    @property
    def longest_request_s(self) -> float:
        """The bound on a whole request, in seconds."""
        return min(self.max_timeout_s, self.predictor_request_timeout_seconds)
