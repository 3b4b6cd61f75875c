"""Compiling the fast engine, and keeping what was compiled where this process may write.

numba's own choice, beside the source, fails for a package folder that is read-only and does not
notice a change in another module. Here the folder's name carries a digest of all the sources.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def _private(folder: Path) -> bool:
    """Makes the folder; whether only we may write to it (what lies there is run unseen)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def cache_folder() -> Path:
    """In NUMBA_CACHE_DIR, else in the user's cache, else a temporary one."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("fast*.py")):
        digest.update(source.read_bytes())
    name = f"keepwarm-kpa-{digest.hexdigest()[:16]}"
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen) / name
    folders = [Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"]
    if home := os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME"):
        below = "" if os.environ.get("XDG_CACHE_HOME") else ".cache"
        folders.insert(0, Path(home) / below / name)
    for folder in folders:
        if _private(folder) and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="keepwarm-"))


FOLDER = cache_folder()
numba.config.CACHE_DIR = str(FOLDER)


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled on first use, for each combination of types; the GIL is free meanwhile.

    Nothing compiled here allocates, so numba need not count references (`_nrt`): that was nine
    tenths of the engine's time. Calls would hand over every array anew: half of the rest.
    """
    compiled = numba.njit(
        cache=True, nogil=True, error_model="numpy", _nrt=False, forceinline=True
    )(function)
    return cast("Callable[P, R]", compiled)
