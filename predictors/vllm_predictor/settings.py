"""The predictor's settings."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from openinference.server.settings import ServerSettings


class PredictorSettings(ServerSettings):
    """Flags of the process and of its engine."""

    command: ClassVar[str] = "python -m vllm_predictor"
    description: ClassVar[str] = "keepwarm's predictor: a vLLM engine behind V2 REST and gRPC."

    model_dir: Path = Field(
        Path("/mnt/models"),
        description="HuggingFace folder of the model (KServe's storage initializer fills the "
        "default).",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="Type to compute in. auto: the model's own on a GPU, float32 on a CPU, where "
        "vLLM's bfloat16 kernels for AMX give wrong text for prompts over 32 tokens.",
    )
    max_model_len: int | None = Field(
        None,
        description="Longest prompt and answer together, in tokens; None is the model's own.",
        ge=16,
    )
    max_num_seqs: int = Field(
        64, description="Most sequences that the engine runs at a time.", ge=1, le=4096
    )
    max_num_queued_reqs: int | None = Field(
        None,
        description="Most sequences running or waiting in the engine; one more gets a 503. "
        "None is no bound.",
        ge=1,
    )
    max_num_queued_tokens: int | None = Field(
        None,
        description="Most prompt tokens waiting in the engine; above it requests get a 503. "
        "None is no bound.",
        ge=1,
    )
    enforce_eager: bool | None = Field(
        None,
        description="Run without compiled graphs. None: true on a CPU, where compiling takes "
        "longer than a minute, false on a GPU.",
    )
    gpu_memory_utilization: float = Field(
        0.9, description="Share of the GPU's memory that the engine takes.", gt=0, le=1
    )
    cpu_kv_cache_gib: int = Field(
        2, description="Size of the KV cache on a CPU, in GiB.", ge=1, le=1024
    )
    engine_log_level: str = Field(
        "warning",
        description="Least severe of vLLM's own log lines that are shown: debug, info, warning or "
        "error.",
        pattern="^(debug|info|warning|error)$",
    )
