"""Engine settings that belong together, by the name of what they are for; any flag overrides one.

A profile is a set of defaults of PredictorSettings, between the flags and environment variables
that are given and the plain defaults.
"""

from enum import StrEnum
from typing import Any, Final


class Profile(StrEnum):
    """The names."""

    CPU_DEMO = "cpu-demo"
    GPU_BF16 = "gpu-bf16"
    GPU_FP8 = "gpu-fp8"
    GPU_AWQ = "gpu-awq"


# One CUDA graph a size takes time to capture and memory to keep: vLLM's own 50 sizes cost seconds
# at every start. A batch runs in the next larger graph, at most twice its size.
GRAPH_SIZES: Final = ("1", "2", "4", "8", "16", "32", "64", "128", "256")

# Llama-3-8B: 2048 tokens in and 1024 out. The model's own 8192 would let one request hold the KV
# cache of nearly three such.
_LLAMA_3_8B: Final[dict[str, Any]] = {
    "max_model_len": 3072,
    # A conversation's turn begins with all turns before it, and most begin with one system prompt.
    "enable_prefix_caching": True,
    "enforce_eager": False,
    "cuda_graph_sizes": GRAPH_SIZES,
    "gpu_memory_utilization": 0.9,
}

PROFILES: Final[dict[Profile, dict[str, Any]]] = {
    # SmolLM2-135M on two shared cores: more sequences at a time only make each slower.
    Profile.CPU_DEMO: {
        "max_model_len": 2048,
        "max_num_seqs": 16,
        "max_num_queued_reqs": 64,
        "enforce_eager": True,
        "cpu_kv_cache_gib": 2,
    },
    # One GPU of 80 GB. 16 GB of weights and graphs leave 54 GB for the KV cache; a token takes
    # 128 KiB (32 layers x 8 heads x 128 x 2, K and V, 2 bytes), 3072 of them 384 MiB: 144 whole
    # sequences, and 256 of the usual length. A step of 8192 tokens keeps such a GPU busy with
    # prompts while it holds all others' tokens back for 0.3 s at most.
    Profile.GPU_BF16: {
        **_LLAMA_3_8B,
        "dtype": "bfloat16",
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "max_num_queued_reqs": 512,
    },
    # The same with weights and KV cache of half the size, on GPUs from Ada and Hopper on.
    Profile.GPU_FP8: {
        **_LLAMA_3_8B,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "kv_cache_dtype": "fp8",
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "max_num_queued_reqs": 512,
    },
    # One GPU of 24 GB. 5.7 GB of weights and the graphs leave 12 GiB: 32 whole sequences, so none
    # is ever preempted and computed again. A step of 2048 tokens of an 8B model is 33 TFLOP, half a
    # second on half of an L4's 121 TFLOPS; larger ones lengthen the pause in all others' streams.
    # AWQ's kernels compute in float16.
    Profile.GPU_AWQ: {
        **_LLAMA_3_8B,
        "dtype": "float16",
        "max_num_seqs": 32,
        "max_num_batched_tokens": 2048,
        "max_num_queued_reqs": 64,
        "cuda_graph_sizes": ("1", "2", "4", "8", "16", "32"),
    },
}
