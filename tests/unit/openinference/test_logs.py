"""Logs for machines: an object a line, and nothing of a caller's in it."""

import json
import logging

import pytest

from openinference.context import RequestContext, logged
from openinference.server import logs


def _line(**more):
    record = logging.LogRecord("a.b", logging.ERROR, "file", 1, "request %s", ("r1",), None)
    vars(record).update(more)
    return json.loads(logs.JsonFormatter().format(record))


def test_a_line_has_time_level_logger_message_and_the_requests_id():
    line = _line(**logged(RequestContext("r1")))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "error",
        "logger": "a.b",
        "message": "request r1",
        "request_id": "r1",
    }


def test_an_exceptions_place_is_told_and_its_words_are_not():
    said = "what they said"
    with pytest.raises(ValueError, match=said) as raised:
        int(said)
    line = _line(exc_info=(raised.type, raised.value, raised.tb))
    assert line["exception"] == "ValueError"
    assert "test_logs.py" in line["stack"]
    assert said not in json.dumps(line)


@pytest.mark.parametrize(("format_", "is_told"), [("text", False), ("json", True)])
def test_each_generation_is_told_to_machines_only(format_, is_told):
    config = logs.logging_config("info", format_)
    assert (config["loggers"].get(logs.GENERATIONS) is None) is is_told
