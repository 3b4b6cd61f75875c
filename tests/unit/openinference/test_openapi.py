"""The served OpenAPI document: complete, and true of every answer that schemathesis provokes."""

import contextlib
import re
from types import SimpleNamespace

import jsonschema_rs
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.applications import Starlette

from openinference.generation import Chunk, FinishReason
from openinference.messages import ServerMetadata
from openinference.server import app as server_app
from openinference.tokens import Token


def _every_operation():
    app = Starlette()
    nobody = SimpleNamespace(max_timeout_s=None, metadata=ServerMetadata("nobody", "0", ()))
    server_app.build(app, nobody, max_body_bytes=1024, openai=True)
    return sorted(
        (route.path, method) for route in app.router.routes for method in route.methods - {"HEAD"}
    )


OPERATIONS = _every_operation()
EXAMPLES = 20


async def test_every_route_is_described_and_every_description_has_a_route(rest):
    document = (await rest.get("/openapi.json")).json()
    described = sorted(
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    )
    assert described == OPERATIONS
    assert document["info"]["version"] == "1.2"
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "components": document["components"]})


async def test_names_of_operations_are_unique(rest):
    document = (await rest.get("/openapi.json")).json()
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(set(names)) == len(names)


async def test_what_generates_takes_a_key_and_nothing_else_does(rest):
    document = (await rest.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    work = ("infer", "/generate", "/generate_stream", "completions")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {name for each in operation.get("security", ()) for name in each}
            assert named == (set(schemes) if path.endswith(work) else set()), path
            assert ({"401", "403"} <= set(operation["responses"])) is path.endswith(work)


@pytest.fixture
def api(service):
    app = Starlette()
    server_app.build(app, service, max_body_bytes=2**20, openai=True)
    # A refusal may also say that there is too much of it.
    config = SchemathesisConfig()
    refusals = config.projects.default.checks.negative_data_rejection
    refusals.expected_statuses = [*refusals.expected_statuses, "413"]
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)

    @loaded.hook
    def map_path_parameters(context, path_parameters):
        """Half of all requests are for the model that there is; else none got past its name."""
        if path_parameters and len(str(path_parameters.get("model", ""))) % 2 == 0:
            path_parameters["model"] = "m"
        return path_parameters

    # Times that the fake service keeps: 504 would be true, and a server error to schemathesis.
    @loaded.hook
    def map_headers(context, headers):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if 0 < float(headers["X-Request-Timeout"]) < 1:
                headers["X-Request-Timeout"] = "1"
        return headers

    @loaded.hook
    def map_body(context, body):
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            if 0 < body["parameters"]["timeout"] < 1_000_000:
                body["parameters"]["timeout"] = 1_000_000
        return body

    return loaded


# What JSON schema cannot say: relations between members, and bounds on their product.
RELATIONS = re.compile(
    "must be at most max_tokens|only allowed when|exclude each other|from 1 to 256 sequences"
    "|must be (true|false) here|at most [0-9]+ bytes and"
)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_request_as_described_is_answered_as_described(api, path, method):
    @given(case=api[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    def check(case):
        if isinstance(case.body, dict) and len(str(case.body.get("model", ""))) % 2:
            case.body["model"] = "m"
        answer = case.call()
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        # Whether tensors fit their shapes is not for JSON schema to say.
        if "infer" not in path and answer.status_code not in (200, 404):
            assert RELATIONS.search(answer.text), answer.text

    check()


@pytest.mark.parametrize("path", [path for path, method in OPERATIONS if method == "POST"])
def test_a_request_that_is_not_as_described_is_refused_as_described(api, path):
    @given(case=api[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    def check(case):
        # With it any bytes are a text.
        raw = (case.headers or {}).get("Inference-Header-Content-Length") == "0"
        case.call_and_validate(excluded_checks=[negative_data_rejection] if raw else [])

    check()


EVENTS = {
    "/v2/models/m/generate_stream": (
        "GenerateEvent",
        {"text_input": "Hi", "parameters": {"details": True}},
    ),
    "/v1/chat/completions": (
        "ChatEvent",
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream_options": {"include_usage": True},
            "logprobs": True,
        },
    ),
    "/v1/completions": ("CompletionEvent", {"model": "m", "prompt": "Hi", "logprobs": 1}),
}


@pytest.mark.parametrize("path", EVENTS)
async def test_events_are_as_described(rest, service, path):
    name, body = EVENTS[path]
    token = Token(5, "Hel", -0.5, top=(Token(7, "é", -0.25),))
    service.script = [
        Chunk(0, "Hel", 3, 1, None, (token,)),
        Chunk(0, "lo", 3, 2, FinishReason.EOS, (token,)),
    ]
    document = (await rest.get("/openapi.json")).json()
    schema = {**document["components"]["schemas"][name], "components": document["components"]}
    answer = await rest.post(path, json=body if "generate" in path else {**body, "stream": True})
    events = [event.removeprefix("data: ") for event in answer.text.split("\n\n")[:-1]]
    assert len(events) >= 2
    for event in events:
        if event != "[DONE]":
            jsonschema_rs.validate(schema, orjson.loads(event))
