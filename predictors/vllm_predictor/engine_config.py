"""vLLM's configuration, made of ours: the front end and the engine's process each make the same."""

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.models import registry
from vllm.platforms import current_platform

from vllm_predictor.settings import PredictorSettings


def create(settings: PredictorSettings) -> VllmConfig:
    """Reads the model's configuration; raises what vLLM raises for one that it cannot serve."""
    # vLLM asks a process of its own what a model can do, lest the asking opens the GPU, and keeps
    # the answer on disk. That process imports vLLM again, for as long as all else takes; ours may
    # open a GPU.
    registry._run_in_subprocess = lambda ask: ask()  # noqa: SLF001 (no public way)
    on_cpu = is_cpu()
    args = AsyncEngineArgs(
        model=str(settings.model_dir),
        served_model_name=[settings.model_name],
        dtype="float32" if on_cpu and settings.dtype == "auto" else settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        enable_prefix_caching=settings.enable_prefix_caching,
        kv_cache_dtype=settings.kv_cache_dtype,
        max_num_queued_tokens=settings.max_num_queued_tokens,
        enforce_eager=settings.is_eager(on_cpu=on_cpu),
        gpu_memory_utilization=settings.gpu_memory_utilization,
        quantization=settings.quantization,
        load_format=settings.load_format,
        cudagraph_capture_sizes=[int(size) for size in settings.cuda_graph_sizes] or None,
        kv_cache_memory_bytes=_bytes(settings.kv_cache_gib),
        enable_sleep_mode=settings.sleep_mode and not on_cpu,
        enable_lora=settings.serves_adapters,
        max_loras=min(settings.max_adapters, settings.max_adapters_per_batch),
        max_cpu_loras=settings.max_adapters,
        max_lora_rank=settings.max_adapter_rank,
        use_tqdm_on_load=False,
    )
    return args.create_engine_config()


def is_cpu() -> bool:
    """Whether vLLM computes on the host."""
    return bool(current_platform.is_cpu())


def device() -> str:
    """The name of what computes here, as vLLM's platform knows it."""
    return "cpu" if is_cpu() else str(current_platform.get_device_name())


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * 2**30)
