"""Options, the server under test, and the report: a table by rule and level.

A case is named `test_RULE_LEVEL_what_holds`. MUST: a rule of the protocol; HTTP: of RFC 9110 and
9112; PEER: what common clients rely on; ROBUST: bad input is refused, nothing hangs or breaks;
SEC: what an attacker would try. A case whose extension the server does not offer is skipped.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from v2probe import protobuf
from v2probe.grpc_client import SERVICE, Grpc
from v2probe.http import Http
from v2probe.target import Target

LEVELS = ("MUST", "HTTP", "PEER", "ROBUST", "SEC")
NAME = re.compile(r"test_([a-z]+\d+)_(must|http|peer|robust|sec)_(.+)")
RESULTS = pytest.StashKey[dict[str, dict[str, str]]]()


def pytest_addoption(parser):
    group = parser.getgroup("V2 conformance")
    group.addoption("--url", help="the server's REST side, http://HOST:PORT")
    group.addoption("--grpc-url", help="its gRPC side, HOST:PORT; without it gRPC is not tested")
    group.addoption("--model", help="a model that takes one BYTES tensor and gives one")
    group.addoption("--input", help="the input's name; default: the model's first BYTES input")
    group.addoption("--output", help="the output's name; default: its first BYTES output")
    group.addoption(
        "--parameters",
        default="{}",
        help='for good requests, JSON: \'{"max_tokens": 4, "temperature": 0.5}\'',
    )
    group.addoption(
        "--header",
        action="append",
        default=[],
        help="a header for every request, 'Name: value' (an API key, say); may be repeated",
    )
    group.addoption(
        "--patience",
        type=float,
        default=30.0,
        help="seconds within which a server must give up on a client that stalls",
    )
    group.addoption("--json-report", help="write the results to this file as JSON")


def pytest_configure(config):
    config.stash[RESULTS] = {}
    if not config.option.collectonly and not config.option.help and not config.option.url:
        raise pytest.UsageError("--url and --model are needed; see --help")


def pytest_collection_modifyitems(items):
    for item in items:
        if not NAME.match(item.originalname):
            raise pytest.UsageError(f"{item.originalname} is not named test_RULE_LEVEL_...")
    # It may take the model away for good.
    items.sort(key=lambda item: "unload" in item.name)


@pytest.fixture(scope="session")
def target(request) -> Target:
    """The server under test."""
    options = request.config.option
    headers = [
        (name.strip(), value.strip())
        for name, _, value in (header.partition(":") for header in options.header)
    ]
    http = Http(options.url, headers)
    grpc = Grpc(options.grpc_url, headers) if options.grpc_url else None
    try:
        answer = http.get(f"/v2/models/{options.model}")
    except OSError as problem:
        pytest.exit(f"{options.url} cannot be reached: {problem}", 2)
    metadata = answer.json() if answer.status == 200 else {}

    def first(kind, name):
        tensors = metadata.get(kind) or []
        for tensor in tensors:
            if tensor.get("name") == name or (name is None and tensor.get("datatype") == "BYTES"):
                return tensor
        if name is None:
            pytest.exit(f"the model's metadata has no BYTES tensor in {kind}: {answer}", 2)
        return {"name": name, "shape": [-1]}

    tensor = first("inputs", options.input)
    shape = [1 if size == -1 else size for size in tensor["shape"]]
    return Target(
        http,
        grpc,
        options.model,
        tensor["name"],
        shape,
        tensor["shape"][:1] == [-1],
        first("outputs", options.output)["name"],
        metadata,
        json.loads(options.parameters),
        options.patience,
    )


@pytest.fixture(scope="session")
def http(target):
    return target.http


@pytest.fixture(scope="session")
def grpc(target):
    if target.grpc is None:
        pytest.skip("no --grpc-url")
    return target.grpc


@pytest.fixture(scope="session")
def binary(target):
    """Skips where the binary tensor extension is neither advertised nor answered."""
    extensions = target.http.get("/v2").json().get("extensions") or []
    if "binary_tensor_data" in extensions:
        return target
    if target.infer_binary(*target.binary_body()).status != 200:
        pytest.skip("binary tensor data is not offered")
    return target


@pytest.fixture(scope="session")
def generate(target):
    """The path of generate; skips where it is not offered."""
    path = f"{target.path}/generate"
    if target.http.post_json(path, {"text_input": "Hello"}).status in (404, 405, 501):
        pytest.skip("generate is not offered")
    return path


@pytest.fixture(scope="session")
def stream(target, grpc):
    """Skips where ModelStreamInfer is not offered."""
    try:
        list(grpc.stream([]))
    except Exception as error:  # noqa: BLE001
        if "UNIMPLEMENTED" in str(error):
            pytest.skip("ModelStreamInfer is not offered")
    return grpc.stream


@pytest.fixture(scope="session")
def repository_index(grpc):
    if not grpc.offers(f"/{SERVICE}/RepositoryIndex", protobuf.encode("index_request", {})):
        pytest.skip("RepositoryIndex is not offered")
    return grpc


@pytest.fixture(scope="session")
def openai(http, target):
    """The prefix of the OpenAI routes; skips where there are none."""
    for prefix in ("/openai/v1", "/v1"):
        answer = http.get(f"{prefix}/models")
        if answer.status == 200 and "data" in answer.json():
            return prefix
    pytest.skip("no OpenAI routes")
    return None


@pytest.fixture(autouse=True)
def _still_there(request):
    """After what is meant to break it, the server still answers."""
    yield
    if "robust" in request.node.name or "_sec_" in request.node.name:
        answer = request.getfixturevalue("target").http.get("/v2/health/live")
        assert answer.status == 200, f"the server is not live afterwards: {answer}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    rule, level, _ = NAME.match(item.originalname).groups()
    case = item.name.removeprefix("test_")
    results = item.config.stash[RESULTS]
    if report.failed:
        reason = call.excinfo.exconly().splitlines()[0] if call.excinfo else "failed"
        outcome = "failed"
    elif report.skipped:
        outcome, reason = "skipped", str(report.longrepr[2]).removeprefix("Skipped: ")
    elif report.when == "call":
        outcome, reason = "passed", ""
    else:
        return
    if results.get(case, {}).get("outcome") != "failed":
        results[case] = {
            "rule": rule.upper(),
            "level": level.upper(),
            "outcome": outcome,
            "reason": reason,
        }


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("V2 conformance")
    for line in table(results):
        terminalreporter.write_line(line)
    if config.option.json_report:
        Path(config.option.json_report).write_text(json.dumps(results, indent=1))


def table(results) -> list[str]:
    """Rows of level, passed, failed and not offered."""
    rows = [f"{'level':<8}{'passed':>8}{'failed':>8}{'not offered':>13}"]
    for level in (*LEVELS, "all"):
        counts = Counter(
            result["outcome"] for result in results.values() if level in ("all", result["level"])
        )
        rows.append(f"{level:<8}{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>13}")
    rules = sorted(
        {r["rule"] for r in results.values() if r["outcome"] == "failed"},
        key=lambda rule: (rule[0], int(rule[1:])),
    )
    rows.append(f"rules with a failed case: {', '.join(rules) or 'none'}")
    return rows
