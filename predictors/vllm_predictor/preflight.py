"""Whether a folder can be served at all, asked before the engine starts: milliseconds, no imports.

vLLM finds a missing shard or a cut-off download after half a minute and tells it in a traceback of
another process. The headers of the safetensors format tell it at once.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vllm_predictor.settings import PredictorSettings

INDEX: Final = "model.safetensors.index.json"
# safetensors: 8 bytes of length, little-endian, then so many bytes of JSON, then the data.
_LENGTH: Final = struct.Struct("<Q")
MOST_HEADER_BYTES: Final = 100_000_000
_FLOATS: Final = ("F", "BF")
_CGROUPS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class UnusableModel(Exception):
    """The model cannot be served; the message says what to change."""


def check(settings: PredictorSettings, memory_bytes: int | None) -> None:
    """Raises UnusableModel unless the folder holds a whole model that `memory_bytes` can hold.

    `memory_bytes` is that of the device which keeps the weights; None is not known.
    """
    folder = settings.model_dir
    config = _config(folder)
    if settings.load_format == "dummy":
        return
    total, kinds = 0, set()
    for path in _weight_files(folder):
        if path.suffix == ".safetensors":
            kinds |= _kinds(path)
        total += path.stat().st_size
    has_floats = not kinds or any(kind.startswith(_FLOATS) for kind in kinds)
    if not has_floats and "quantization_config" not in config:
        raise UnusableModel(
            f"{folder}: the weights are {', '.join(sorted(kinds))} and config.json names no "
            "quantization_config that says how to read them"
        )
    if memory_bytes is not None and total > memory_bytes:
        raise UnusableModel(
            f"{folder}: the weights are {total / 2**30:.1f} GiB, and {memory_bytes / 2**30:.1f} GiB"
            " of memory are there to hold them; take a smaller or a quantized model, or more memory"
        )


def has_gpu() -> bool:
    """Whether an NVIDIA driver is here; asked of the device file, as importing torch takes long."""
    return Path("/dev/nvidiactl").exists()


def host_memory_bytes() -> int:
    """What this process may use: the machine's memory, or the container's limit."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    total = int(meminfo.split("MemTotal:", 1)[1].split()[0]) * 1024
    limits = [path.read_text(encoding="ascii").strip() for path in _CGROUPS if path.exists()]
    return min(total, *(int(limit) for limit in limits if limit.isdecimal()), total)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError:
        raise UnusableModel(f"{folder} is not a HuggingFace folder (no config.json)") from None
    except ValueError as error:
        raise UnusableModel(f"{path} is not JSON ({error}); copy the model again") from None
    if not isinstance(config, dict) or not config.get("architectures"):
        raise UnusableModel(f"{path} names no architectures: it is not a model's configuration")
    return config


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        try:
            shards = sorted({*json.loads(index.read_bytes())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UnusableModel(f"{index} is not an index of weights; copy it again") from None
        missing = [shard for shard in shards if not (folder / shard).exists()]
        if missing:
            raise UnusableModel(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files that {INDEX} names, "
                f"{missing[0]} first; copy the model again"
            )
        return [folder / shard for shard in shards]
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not found:
        raise UnusableModel(f"{folder} holds no weights (*.safetensors, *.bin)")
    return found


def _kinds(path: Path) -> set[str]:
    """The types of the tensors in a safetensors file; raises UnusableModel when it is not whole."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            # json says what is wrong with a header that ends early.
            header = json.loads(file.read(min(length, MOST_HEADER_BYTES)))
        tensors = list(_tensors(header))
        end = _LENGTH.size + length + max((end for _, end in tensors), default=0)
    except (ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise UnusableModel(f"{path} is corrupt ({error}); copy it again") from None
    if end != size:
        raise UnusableModel(f"{path} has {size} bytes and should have {end}; copy it again")
    return {kind for kind, _ in tensors}


def _tensors(header: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Type and end of each tensor in a header."""
    for name, tensor in header.items():
        if name != "__metadata__":
            yield str(tensor["dtype"]), int(tensor["data_offsets"][1])
