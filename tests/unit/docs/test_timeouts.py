"""docs/timeouts.md says what the code, the manifests and the clients' libraries do."""

import inspect
import re
from pathlib import Path

import pytest
import tritonclient.http
import yaml
from openai._constants import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT

from llm_transformer.h2 import connection, link
from llm_transformer.resilience import wakeup
from llm_transformer.settings import TransformerSettings
from manifest_lint.cluster import Cluster
from manifest_lint.rules import RULES
from openinference.rest import _body, _event_sender
from openinference.server import http_protocol, lifecycle
from vllm_predictor.settings import PredictorSettings

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
PAGE = (ROOT / "docs" / "timeouts.md").read_text()
FRONT, BACK = (
    {name: field.default for name, field in settings.model_fields.items()}
    for settings in (TransformerSettings, PredictorSettings)
)
SERVED = dict(lifecycle.GRPC_OPTIONS)
SERVICE = yaml.safe_load((MANIFESTS / "base" / "inferenceservice.yaml").read_text())["spec"]
STANDARD = (MANIFESTS / "components" / "standard" / "kustomization.yaml").read_text()
PROBE = SERVICE["predictor"]["containers"][0]["startupProbe"]


def _only(pattern):
    """The one number that the component for Standard mode sets, for both servers alike."""
    (number,) = set(re.findall(pattern, STANDARD))
    return float(number)


# What is ours, or in a library that is installed here; the page's other numbers are quoted.
SECONDS = {
    "triton client": inspect.signature(tritonclient.http.InferenceServerClient)
    .parameters["network_timeout"]
    .default,
    "openai client": DEFAULT_TIMEOUT.read,
    "stock revision": Cluster().timeout_s,
    "most revision": Cluster().max_timeout_s,
    "progress deadline": Cluster().progress_deadline_s,
    "transformer revision": SERVICE["transformer"]["timeout"],
    "predictor revision": SERVICE["predictor"]["timeout"],
    "predictor start": PROBE["periodSeconds"] * PROBE["failureThreshold"],
    "standard grace": _only(r"terminationGracePeriodSeconds\n +value: (\d+)"),
    "standard sleep": _only(r"preStop: \{sleep: \{seconds: (\d+)\}\}"),
    "head": http_protocol.HEAD_S,
    "body": _body.BODY_S,
    "keep-alive": lifecycle.KEEP_ALIVE_S,
    "comment": _event_sender.QUIET_S,
    "transformer maximum": FRONT["max_timeout_s"],
    "predictor call": FRONT["predictor_request_timeout_seconds"],
    "redis": FRONT["redis_timeout_s"],
    "unreachable hold": FRONT["unreachable_hold_s"],
    "cold start margin": wakeup.MARGIN_S,
    "queue target": FRONT["queue_target_s"],
    "queue longest": FRONT["queue_longest_s"],
    "idle": FRONT["predictor_idle_s"],
    "connect": link.CONNECT_S,
    "ping": connection.SILENCE_S,
    "ping answer": connection.PONG_S,
    "pings allowed": SERVED["grpc.http2.min_ping_interval_without_data_ms"] / 1e3,
    "caller ping": SERVED["grpc.keepalive_time_ms"] / 1e3,
    "caller ping answer": SERVED["grpc.keepalive_timeout_ms"] / 1e3,
    "stall": FRONT["stream_stall_s"],
    "predictor maximum": BACK["max_timeout_s"],
    "transformer drain": FRONT["drain_s"],
    "predictor drain": BACK["drain_s"],
}
QUOTED = {"kserve client", "proxy silence", "queue-proxy quiet", "stable window"}


def _table(heading):
    """The cells of the table below a heading, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


ROWS = {cells[0]: cells for cells in _table("Who waits how long")}
ORDER = _table("What must be shorter than what")


def test_every_row_is_checked_or_quoted():
    assert set(ROWS) == set(SECONDS) | QUOTED


@pytest.mark.parametrize("name", SECONDS)
def test_the_page_has_the_default(name):
    assert float(ROWS[name][2]) == SECONDS[name]


def test_what_the_page_says_of_retries_is_so():
    assert ROWS["openai client"][4] == f"fail; {DEFAULT_MAX_RETRIES} retries"


@pytest.mark.parametrize("row", ORDER, ids=lambda row: " ".join(row[:3]))
def test_who_gives_up_first_can_say_why(row):
    lower, sign, upper, numbers, why, lint = row
    left = sum(float(ROWS[name][2]) for name in lower.split(" + "))
    right = float(ROWS[upper][2])
    assert sign in "<≤"
    assert left < right or (sign == "≤" and left == right), why
    assert numbers == f"{left:g} {sign} {right:g}"
    if lint:
        number = re.fullmatch(r"\[(KW\d+)\]\(lint\.md#kw\d+\)", lint)[1]
        assert number in {rule.id for rule in RULES}


@pytest.mark.parametrize("name", re.findall(r"`(?:--(\w+))`", PAGE))
def test_flags_that_the_page_names_exist(name):
    assert name in FRONT
