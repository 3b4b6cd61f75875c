"""Which LoRA adapters may be served, and whether one's files are whole, read without the engine.

Only folders named on the command line, or direct children of the one allow-listed folder, are ever
opened: a model's name is looked up, never joined to a path unchecked.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from openinference.errors import FailedDependency

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# How long a listing of the folder is good for: /v2/models may be asked often, the folder be remote.
LISTING_S: Final = 1.0
# Settings of peft that change what the adapter means; vLLM refuses each.
_REFUSED: Final = ("use_dora", "lora_bias", "use_qalora", "layer_replication", "modules_to_save")


class Catalog:
    """Adapter names and their folders: a fixed table, and what an allow-listed folder holds."""

    def __init__(self, fixed: Mapping[str, Path], folder: Path | None) -> None:
        self._fixed = dict(fixed)
        self._folder = folder
        self._listed: tuple[str, ...] = ()
        self._listed_at = -LISTING_S

    @property
    def fixed(self) -> Sequence[str]:
        """The names of the fixed table."""
        return tuple(self._fixed)

    def find(self, name: str) -> Path | None:
        """The adapter's folder, None for a name that may not be served."""
        if name in self._fixed:
            return self._fixed[name]
        if self._folder is None or NAME.fullmatch(name) is None:
            return None
        path = self._folder / name
        # A link that leads out of the allow-listed folder is not allowed by being in it.
        inside = path.resolve().is_relative_to(self._folder.resolve())
        return path if inside and (path / CONFIG).is_file() else None

    def names(self) -> Sequence[str]:
        """Every name that can be served now."""
        if self._folder is not None and time.monotonic() - self._listed_at >= LISTING_S:
            try:
                children = sorted(child.name for child in self._folder.iterdir())
            except OSError:
                children = []
            self._listed = tuple(name for name in children if self.find(name) is not None)
            self._listed_at = time.monotonic()
        return tuple(dict.fromkeys((*self._fixed, *self._listed)))


def parse_fixed(entries: Sequence[str]) -> dict[str, Path]:
    """The table that NAME=FOLDER entries make; raises ValueError for what is none."""
    table: dict[str, Path] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if not equals or NAME.fullmatch(name) is None or not folder:
            raise ValueError(f"an adapter is written NAME=FOLDER, got {entry!r:.80}")
        if name in table:
            raise ValueError(f"adapter '{name}' is named twice")
        table[name] = Path(folder)
    return table


def check(name: str, folder: Path, max_rank: int) -> None:
    """Raises FailedDependency unless the folder holds a whole adapter that the engine can run.

    A truncated file is found here, from its header and its length, and never reaches the engine.
    """
    config = _config(name, folder)
    if config.get("peft_type") != "LORA":
        raise _broken(name, f"it is no LoRA (peft_type {config.get('peft_type')!r:.40})")
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise _broken(name, f"{CONFIG} has no valid rank r")
    if max(ranks) > max_rank:
        raise _broken(name, f"its rank {max(ranks)} is over this predictor's {max_rank}")
    if used := [key for key in _REFUSED if config.get(key)]:
        raise _broken(name, f"the engine has no {used[0]}")
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
            if not list(tensors.keys()):
                raise _broken(name, f"{WEIGHTS} holds no tensors")
    except FileNotFoundError:
        raise _broken(name, f"it has no {WEIGHTS}") from None
    except (SafetensorError, OSError) as error:
        raise _broken(name, f"{WEIGHTS} cannot be read ({error})") from None


def _config(name: str, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(name, f"{CONFIG} cannot be read ({type(error).__name__})") from None
    if not isinstance(config, dict):
        raise _broken(name, f"{CONFIG} is not an object")
    return config


def _broken(name: str, reason: str) -> FailedDependency:
    return FailedDependency(f"adapter '{name}' cannot be loaded: {reason}")
