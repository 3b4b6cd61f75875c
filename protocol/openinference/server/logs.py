"""One log format for all that a server's process prints: lines for people, JSON for machines."""

import json
import logging
import logging.config
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# Tells of each generation; in lines for people that would be too many.
GENERATIONS = "keepwarm.generations"
# The attribute of a record, given as `extra`, whose members join the JSON object.
FIELDS = "fields"


class JsonFormatter(logging.Formatter):
    """An object a line; of an exception its kind and place, for its words may be a caller's."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            line["exception"] = kind.__name__
            line["stack"] = "".join(traceback.format_tb(trace))
        return json.dumps(line, ensure_ascii=False, default=str)


def logging_config(level: str, format_: LogFormat = "text") -> dict[str, Any]:
    """A `logging.config.dictConfig` dictionary: everything at `level` to stderr, in one format."""
    quiet = ["uvicorn", "httpx", "kserve", "asyncio"]
    if format_ == "text":
        quiet.append(GENERATIONS)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": FORMAT}
            if format_ == "text"
            else {"()": f"{JsonFormatter.__module__}.{JsonFormatter.__name__}"}
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        # Their INFO lines tell each request, or what our own lines already say.
        "loggers": {name: {"level": "WARNING"} for name in quiet},
    }


def configure(level: str, format_: LogFormat = "text") -> None:
    """Sets up the logging of this process."""
    logging.config.dictConfig(logging_config(level, format_))
