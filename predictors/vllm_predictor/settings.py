"""The predictor's settings."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from openinference.server.settings import LIST, ServerSettings
from vllm_predictor.adapter_files import parse_fixed


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
    max_num_batched_tokens: int | None = Field(
        None,
        description="Most tokens, prompts' and answers' together, that one step of the engine "
        "computes; a longer prompt is computed in pieces. None is vLLM's choice.",
        ge=16,
    )
    enable_prefix_caching: bool = Field(
        True, description="Keep the KV cache of prompts that begin alike, and compute it once."
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        "auto",
        description="Type of the KV cache. auto: the model's own; fp8: half its size, on GPUs from "
        "Ada and Hopper on.",
    )
    max_num_queued_reqs: int | None = Field(
        None,
        description="Most sequences running or waiting in the engine; one more gets a 503 with "
        "Retry-After. None is twice --max_num_seqs.",
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
    adapters: LIST = Field(
        (),
        description="LoRA adapter of the model as NAME=FOLDER, served under that name beside the "
        "model; loaded at the start.",
    )
    adapters_dir: Path | None = Field(
        None,
        description="Folder whose child folders are LoRA adapters, each served under its folder's "
        "name and loaded when first asked for. No other folder is ever opened.",
    )
    max_adapters: int = Field(
        8,
        description="Most adapters in memory; for another one the least recently used idle one "
        "leaves, and with none idle the request gets a 503.",
        ge=1,
        le=1024,
    )
    max_adapters_per_batch: int = Field(
        4, description="Most different adapters in one step of the engine.", ge=1, le=256
    )
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = Field(
        16, description="Largest rank of an adapter; memory for this rank is set aside."
    )
    engine_log_level: str = Field(
        "warning",
        description="Least severe of vLLM's own log lines that are shown: debug, info, warning or "
        "error.",
        pattern="^(debug|info|warning|error)$",
    )

    @field_validator("adapters")
    @classmethod
    def _named_folders(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        parse_fixed(entries)
        return entries

    @field_validator("max_adapter_rank", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A literal takes no text for a number."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @property
    def serves_adapters(self) -> bool:
        """Whether any adapter may be asked for."""
        return bool(self.adapters) or self.adapters_dir is not None

    @property
    def admitted_sequences(self) -> int:
        """The bound on sequences in the engine."""
        return self.max_num_queued_reqs or 2 * self.max_num_seqs
