import json
import logging
import subprocess
import sys

import pytest

from vllm_predictor import engine_events


@pytest.fixture
def events_file(tmp_path, monkeypatch):
    path = tmp_path / "events"
    monkeypatch.setenv(engine_events.EVENTS_FILE, str(path))
    return path


def _record(message, *args):
    return logging.LogRecord("vllm.x", logging.INFO, "x.py", 1, message, args, None)


@pytest.mark.parametrize(
    ("message", "args", "name"),
    [
        ("Starting to load model %s...", ("/mnt/models",), "weights_begin"),
        ("Loading weights took %.2f seconds", (1.5,), "weights_end"),
        ("Model loading took %.4f GiB", (1.5,), None),
        ("It says: Loading weights took", (), None),
        (("not", "text"), (), None),
    ],
)
def test_only_vllms_two_messages_are_events(events_file, message, args, name):
    engine_events.EventHandler().emit(_record(message, *args))
    assert [each for each, _ in engine_events.events()] == ([] if name is None else [name])


def test_events_come_in_order_with_their_times(events_file):
    handler = engine_events.EventHandler()
    handler.emit(_record("Starting to load model x"))
    handler.emit(_record("Loading weights took 1 s"))
    (first, began), (second, ended) = engine_events.events()
    assert (first, second) == ("weights_begin", "weights_end")
    assert 0 < began <= ended


@pytest.mark.parametrize(
    ("content", "events"),
    [
        (None, []),
        ("", []),
        ("weights_begin 1.5\n", [("weights_begin", 1.5)]),
        ("weights_begin 1.5\nweights_end", [("weights_begin", 1.5)]),
        ("weights_begin 1.5\n\n", [("weights_begin", 1.5)]),
    ],
)
def test_what_is_not_there_yet_is_not_an_event(events_file, content, events):
    if content is not None:
        events_file.write_text(content)
    assert engine_events.events() == events


# Logging is one for a process, so this configures that of another.
CONFIGURE = """
import json, logging, logging.config, os, sys
from pathlib import Path
from vllm_predictor import engine_events

engine_events.configure_logging(Path(sys.argv[1]), "info", sys.argv[2])
if sys.argv[3] == "as a child":
    # What vLLM's own processes do with the configuration they are pointed to.
    logging.config.dictConfig(json.loads(Path(os.environ["VLLM_LOGGING_CONFIG_PATH"]).read_text()))
vllm = logging.getLogger("vllm.v1.worker")
vllm.debug("vllm debug")
vllm.info("Starting to load model %s", "x")
vllm.info("Loading weights took %.2f seconds", 1.0)
vllm.warning("vllm warning")
logging.getLogger("vllm_predictor").info("ours")
logging.getLogger("uvicorn.access").info("a line a request")
print(json.dumps(engine_events.events()))
"""


@pytest.mark.parametrize("where", ["in the parent", "as a child"])
@pytest.mark.parametrize(
    ("level", "shown", "hidden"),
    [
        ("warning", ["vllm warning"], ["vllm debug", "Starting to load"]),
        ("info", ["vllm warning", "Starting to load"], ["vllm debug"]),
        ("debug", ["vllm warning", "Starting to load", "vllm debug"], []),
        ("error", [], ["vllm warning", "vllm debug", "Starting to load"]),
    ],
)
def test_events_are_reported_whatever_level_the_engine_shows(tmp_path, level, shown, hidden, where):
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURE, tmp_path, level, where],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [name for name, _ in json.loads(done.stdout)] == ["weights_begin", "weights_end"]
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.endswith("INFO    vllm_predictor: ours")]
    assert "a line a request" not in done.stderr
    for text in shown:
        assert sum(text in line for line in lines) == 1
    for text in hidden:
        assert text not in done.stderr
