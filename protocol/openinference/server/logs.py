"""One log format for everything a server's process prints."""

import logging.config
from typing import Any

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def logging_config(level: str) -> dict[str, Any]:
    """A `logging.config.dictConfig` dictionary: everything at `level` to stderr, in one format."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": FORMAT}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        # Their INFO lines tell each request, or what our own lines already say.
        "loggers": {
            name: {"level": "WARNING"} for name in ("uvicorn", "httpx", "kserve", "asyncio")
        },
    }


def configure(level: str) -> None:
    """Sets up the logging of this process."""
    logging.config.dictConfig(logging_config(level))
