"""The predictor's settings."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from openinference.server.settings import LIST, ServerSettings
from vllm_predictor.adapter_files import parse_fixed
from vllm_predictor.profiles import PROFILES, Profile


class PredictorSettings(ServerSettings):
    """Flags of the process and of its engine."""

    command: ClassVar[str] = "python -m vllm_predictor"
    description: ClassVar[str] = "keepwarm's predictor: a vLLM engine behind V2 REST and gRPC."

    model_dir: Path = Field(
        Path("/mnt/models"),
        description="HuggingFace folder of the model (KServe's storage initializer fills the "
        "default).",
    )
    profile: Profile | None = Field(
        None,
        description="Settings of the engine that belong together: cpu-demo, gpu-bf16, gpu-fp8 or "
        "gpu-awq; flags that are given win (predictors/vllm_predictor/profiles.py has the numbers "
        "and their reasons).",
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
    quantization: Literal["fp8"] | None = Field(
        None,
        description="Quantize weights while they are loaded. None is what the model's own "
        "configuration says (AWQ, GPTQ, FP8 checkpoints).",
    )
    load_format: Literal["auto", "dummy", "runai_streamer", "fastsafetensors"] = Field(
        "auto",
        description="How weights are read: auto, with a library that the image holds "
        "(runai_streamer, fastsafetensors), or dummy: none are read, for measuring.",
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
    deferred_imports: bool = Field(
        True,
        description="Import what serving text does not use (pictures, tool calls; on a CPU, where "
        "nothing is compiled, torch's compiler) when it is first used, if ever.",
    )
    gpu_memory_utilization: float = Field(
        0.9, description="Share of the GPU's memory that the engine takes.", gt=0, le=1
    )
    cuda_graph_sizes: LIST = Field(
        (),
        description="Batch sizes to capture a CUDA graph for; a batch runs in the next larger one. "
        "None given is vLLM's choice, about 50.",
    )
    kv_cache_gib: float | None = Field(
        None,
        description="Size of the KV cache on a GPU, in GiB, instead of a share of its memory that "
        "is measured at each start, which takes seconds; `bake` measures it once.",
        gt=0,
    )
    compile_cache: Path | None = Field(
        None,
        description="Folder that `python -m vllm_predictor.bake` has filled with compiled code for "
        "exactly these settings. One that was baked for others is refused.",
    )
    sleep_mode: bool = Field(
        False,
        description="Let the engine give its GPU memory back and take it again: when an operator "
        "asks (`python -m vllm_predictor.admin`), or when idle. Costs a little memory; a GPU only.",
    )
    sleep_after_s: float | None = Field(
        None,
        description="Idle time, in seconds, after which the engine sleeps; the next request wakes "
        "it. None is never.",
        gt=0,
    )
    sleep_level: Literal[1, 2] = Field(
        1,
        description="How deep it sleeps when idle. 1 keeps the weights in the host's memory and "
        "wakes in about a second; 2 reads them from disk again.",
    )
    admin_port: int = Field(
        8082,
        description="Port on this pod's loopback for sleep and wake; nothing listens without "
        "--sleep_mode.",
        ge=1,
        le=65535,
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

    @model_validator(mode="before")
    @classmethod
    def _with_profile(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What the profile says wherever nothing was given."""
        name = given.get("profile")
        if name not in set(Profile):
            return given
        return {**PROFILES[Profile(name)], **given}

    @field_validator("cuda_graph_sizes")
    @classmethod
    def _sizes(cls, sizes: tuple[str, ...]) -> tuple[str, ...]:
        if any(not size.isdecimal() or not 0 < int(size) <= 4096 for size in sizes):
            raise ValueError("batch sizes are whole numbers from 1 to 4096")
        return sizes

    @field_validator("adapters")
    @classmethod
    def _named_folders(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        parse_fixed(entries)
        return entries

    @model_validator(mode="after")
    def _sleeps_in_sleep_mode(self) -> Self:
        if self.sleep_after_s is not None and not self.sleep_mode:
            raise ValueError("--sleep_after_s needs --sleep_mode")
        return self

    @field_validator("max_adapter_rank", "sleep_level", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A literal takes no text for a number."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    def is_eager(self, *, on_cpu: bool) -> bool:
        """Whether the model runs as it is written, without compiled graphs."""
        return on_cpu if self.enforce_eager is None else self.enforce_eager

    @property
    def serves_adapters(self) -> bool:
        """Whether any adapter may be asked for."""
        return bool(self.adapters) or self.adapters_dir is not None

    @property
    def admitted_sequences(self) -> int:
        """The bound on sequences in the engine."""
        return self.max_num_queued_reqs or 2 * self.max_num_seqs
