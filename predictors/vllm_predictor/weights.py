"""What weights a folder holds: an id that is the same on every replica and changes with the files.

The id goes into the model's metadata, so that whoever keeps answers can let them die with the
weights that gave them.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Final

# Larger files are sampled: other weights differ nearly everywhere, and reading 16 GB takes seconds.
WHOLE_BYTES: Final = 64 * 2**20
SAMPLES: Final = 16
SAMPLE_BYTES: Final = 2**18

_READ_BYTES: Final = 16 * 2**20

Stamp = tuple[tuple[str, int, int], ...]


def stamp(folder: Path) -> Stamp:
    """Name, size in bytes and time of change (ns) of each file: cheap, and differs after a change.

    Raises OSError when the folder cannot be read.
    """
    found = []
    for path in sorted(folder.iterdir()):
        status = path.stat()
        if path.is_file():
            found.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def weights_id(folder: Path) -> str:
    """16 hexadecimal digits from the contents of the folder's files (not of folders in it).

    Files over 64 MiB are sampled in 16 places, their size included. Raises OSError.
    """
    digest = hashlib.sha256()
    for name, size, _ in stamp(folder):
        digest.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for number in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def read_ahead(folder: Path) -> None:
    """Brings the weights into the page cache, so that loading them does not wait for the disk."""
    buffer = bytearray(_READ_BYTES)
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
