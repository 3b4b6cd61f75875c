"""Tells when the engine's own process loads weights, by listening to what vLLM logs there.

vLLM builds its engine in a child process and offers no progress; it does let us choose its logging
configuration. A handler of that configuration appends a line to a file when weights begin and when
they end, and the parent reads the file.
"""

import json
import logging
import logging.config
import os
import time
from pathlib import Path
from typing import Final

from openinference.server.logs import LogFormat, logging_config

EVENTS_FILE: Final = "KEEPWARM_ENGINE_EVENTS"
# vLLM's format strings (v1/worker/*_model_runner.py, model_loader/default_loader.py).
_MARKS: Final = {
    "Starting to load model": "weights_begin",
    "Loading weights took": "weights_end",
}
# "Available KV cache memory: %s GiB" (v1/worker/gpu_worker.py), the number as text.
_KV_CACHE: Final = "Available KV cache memory"


class EventHandler(logging.Handler):
    """Appends "NAME SECONDS" (time.monotonic) to the events file for records we know."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called for each record of vLLM's loggers."""
        message = str(record.msg)
        for start, name in _MARKS.items():
            if message.startswith(start):
                with Path(os.environ[EVENTS_FILE]).open("a") as events:
                    events.write(f"{name} {time.monotonic()}\n")
        if message.startswith(_KV_CACHE):
            with Path(os.environ[EVENTS_FILE]).open("a") as events:
                events.write(f"kv_cache_gib {record.getMessage().split()[-2]}\n")


def configure_logging(
    folder: Path, level: str, engine_level: str, format_: LogFormat = "text"
) -> None:
    """Sets up this process's logging and, through its environment, that of vLLM's children.

    Both log in one format; vLLM's loggers show lines from `engine_level` on and report events
    below `folder`. Must run before vLLM is imported.
    """
    config = logging_config(level, format_)
    config["handlers"]["events"] = {"class": "vllm_predictor.engine_events.EventHandler"}
    config["handlers"]["engine"] = {
        **config["handlers"]["stderr"],
        "level": engine_level.upper(),
    }
    config["loggers"]["vllm"] = {
        # The events are INFO lines, whatever the screen shows.
        "level": "DEBUG" if engine_level == "debug" else "INFO",
        "handlers": ["events", "engine"],
        "propagate": False,
    }
    path = folder / "logging.json"
    path.write_text(json.dumps(config))
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(path)
    os.environ[EVENTS_FILE] = str(folder / "events")
    logging.config.dictConfig(config)


def events() -> list[tuple[str, float]]:
    """What has been reported so far: (name, time.monotonic); for kv_cache_gib (name, GiB)."""
    path = Path(os.environ[EVENTS_FILE])
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(line[0], float(line[1])) for line in lines if len(line) == 2]
