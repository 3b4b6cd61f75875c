"""The stages over a predictor client, and REST in front of a predictor behind gRPC."""

import httpx
import pytest
from starlette.applications import Starlette

from llm_transformer.auth import Authenticator
from llm_transformer.predictor_client import PredictorClient
from llm_transformer.service import TransformerService
from llm_transformer.settings import TransformerSettings
from openinference import errors
from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.rest import routes
from openinference.sampling import SamplingParams
from openinference.server.lifecycle import Lifecycle

INFER = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}]}


class FakePredictor:
    def __init__(self, *, ready):
        self.ready = ready
        self.asked = 0

    async def is_ready(self, model):
        self.asked += 1
        return self.ready


def _service(predictor, lifecycle, **settings):
    given = TransformerSettings(model_name="m", predictor_host="predictor", **settings)
    auth = Authenticator(None, allow_anonymous=True)
    return TransformerService(given, predictor, lifecycle, auth=auth)


@pytest.mark.parametrize(
    ("check", "predictor_ready", "draining", "ready"),
    [
        (False, False, False, True),
        (False, True, True, False),
        (True, True, False, True),
        (True, False, False, False),
        (True, True, True, False),
    ],
)
async def test_readiness(check, predictor_ready, draining, ready):
    lifecycle, predictor = Lifecycle(), FakePredictor(ready=predictor_ready)
    service = _service(predictor, lifecycle, enable_predictor_health_check=check)
    if draining:
        lifecycle.stop()
    assert await service.is_ready() is ready
    assert await service.is_model_ready("m", None) is ready
    assert await service.is_live()
    assert check or predictor.asked == 0  # a probe would wake what has scaled to zero


async def test_another_model_and_any_version_are_not_found():
    service = _service(FakePredictor(ready=True), Lifecycle())
    request = GenerationRequest("x", ("Hi",), SamplingParams(), stream=False)
    for model, version in (("x", None), ("m", "1")):
        with pytest.raises(errors.NotFound):
            await service.is_model_ready(model, version)
        with pytest.raises(errors.NotFound):
            await service.model_metadata(model, version)
    with pytest.raises(errors.NotFound):
        service.generate(request, None, RequestContext("a"))


def test_the_longest_request_is_the_shorter_of_both_bounds():
    service = _service(
        FakePredictor(ready=True),
        Lifecycle(),
        max_timeout_s=50,
        predictor_request_timeout_seconds=7,
    )
    assert service.max_timeout_s == 7


@pytest.fixture
async def rest(grpc_target):
    """HTTP in front of the transformer, whose predictor is the fake service behind gRPC."""
    predictor = PredictorClient(grpc_target, tls=False)
    service = _service(predictor, Lifecycle())
    app = Starlette(routes=routes(service, max_body_bytes=4096, openai=True))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await predictor.close()


async def test_the_predictors_answer_is_the_transformers(rest, service):
    answer = await rest.post(
        "/v2/models/m/infer",
        json={**INFER, "id": "a1"},
        headers={"x-request-id": "abc"},
    )
    assert answer.json()["id"] == "a1"
    assert answer.json()["outputs"][0]["data"] == ["Hello"]
    assert service.context.request_id == "abc"
    assert service.context.deadline is not None


async def test_nobody_names_a_tenant_or_a_priority_for_himself(rest, service):
    headers = {"x-keepwarm-tenant": "acme", "x-keepwarm-priority": "9"}
    await rest.post("/v2/models/m/infer", json=INFER, headers=headers)
    assert (service.context.tenant, service.context.priority) == (None, 0)


async def test_the_predictors_status_passes_unchanged(rest, service, every_error):
    for error in every_error:
        if error.http_status in (202, 408, 413, 415):  # the edges' own
            continue
        service.script = [error]
        answer = await rest.post("/v2/models/m/infer", json=INFER)
        assert answer.status_code == error.http_status
        assert answer.headers.get("retry-after") == (
            None if error.retry_after_s is None or error.http_status == 504 else "3"
        )


async def test_before_the_first_event_a_status_and_after_it_an_event(rest, service):
    body = {"text_input": "Hi"}
    service.script = [errors.Unavailable("the engine is full", retry_after_s=1)]
    answer = await rest.post("/v2/models/m/generate_stream", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    service.script = [Chunk(0, "Hel", 3, 1), errors.Unavailable("the engine has ended")]
    answer = await rest.post("/v2/models/m/generate_stream", json=body)
    assert answer.status_code == 200
    assert answer.text.endswith('data: {"error":"the engine has ended"}\n\n')


async def test_headers_that_grpc_cannot_carry_do_no_harm(rest):
    headers = {
        b"tracestate": "a=\u00e9".encode(),
        b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"x-keepwarm-tenant": b"\xe9",
        b"x-request-id": b"\xe9",
    }
    answer = await rest.post("/v2/models/m/infer", json=INFER, headers=headers)
    assert answer.status_code == 200
