"""The stages put together: what is refused at the start, and keys and limits on every protocol."""

import grpc
import httpx
import pytest
from starlette.applications import Starlette

from llm_transformer import stages
from llm_transformer.service import TransformerService
from llm_transformer.settings import TransformerSettings
from openinference import key_file
from openinference.api_keys import new_key
from openinference.generation import Chunk, FinishReason
from openinference.grpc_servicer import InferenceServicer, register
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from openinference.rest import routes
from openinference.server import cors
from openinference.server.lifecycle import Lifecycle

PLANS = """
plans:
  default: {requests: {limit: 60, burst: 3}, max_tokens: 5}
  anonymous: {requests: {limit: 60, burst: 1}}
"""
INFER = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Answering:
    """A Forward without a predictor."""

    def __init__(self):
        self.requests, self.contexts = [], []

    async def generate(self, request, context):
        self.requests.append(request)
        self.contexts.append(context)
        yield Chunk(0, "Hello", 2, 3, FinishReason.EOS)

    async def is_ready(self, model):
        return True


@pytest.fixture
def files(tmp_path):
    """Files of keys and plans; `key` is a valid key."""

    class Files:
        key, kept = new_key(tenant="acme")
        keys_file = str(tmp_path / "keys.yaml")
        plans_file = str(tmp_path / "plans.yaml")

    (tmp_path / "keys.yaml").write_text(key_file.dump([Files.kept]))
    (tmp_path / "plans.yaml").write_text(PLANS)
    return Files


def _settings(**settings):
    return TransformerSettings(model_name="m", predictor_host="p", **settings)


@pytest.fixture
async def serve():
    """Opens the stages with these settings: (service, forward)."""
    opened = []

    async def start(**settings):
        given, forward = _settings(**settings), Answering()
        protection = stages.protection(given, forward, None)
        opened.append(protection)
        made = await protection.__aenter__()
        service = TransformerService(
            given, forward, Lifecycle(), auth=made.auth, limits=made.limits
        )
        return service, forward

    yield start
    for protection in opened:
        await protection.__aexit__(None, None, None)


def _rest(service, origins=()):
    app = cors.allowing(
        Starlette(routes=routes(service, max_body_bytes=4096, openai=True)), origins
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nobody could call: give --keys_file (keepwarm keys create makes one)"),
        ({"keys_file": "/none"}, "--keys_file: /none: "),
        ({"allow_anonymous": True, "plans_file": "/none"}, "--plans_file: /none cannot be read"),
        (
            {"allow_anonymous": True, "plans_file": "plans", "trusted_proxies": ("10.1.1.1/8",)},
            "--trusted_proxies: 10.1.1.1/8 has host bits set",
        ),
    ],
)
async def test_what_cannot_work_does_not_start(serve, files, given, told):
    if given.get("plans_file") == "plans":
        given = {**given, "plans_file": files.plans_file}
    with pytest.raises(SystemExit) as refused:
        await serve(**given)
    assert told in str(refused.value)


@pytest.mark.parametrize("plans", ["plans: {other: {}}", "plans: {default: {}}"])
async def test_a_plan_that_somebody_needs_must_be_there(serve, files, tmp_path, plans):
    (tmp_path / "plans.yaml").write_text(plans)
    with pytest.raises(SystemExit, match=r"there is no plan '(anonymous|default)'"):
        await serve(keys_file=files.keys_file, plans_file=files.plans_file, allow_anonymous=True)


async def test_a_redis_url_that_cannot_be_meant_is_refused_without_its_password():
    with pytest.raises(SystemExit) as refused:
        async with stages.shared_store(_settings(redis_url="http://:hunter2@x")):
            pass
    assert "--redis_url must start with" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v2/models/m/infer", INFER, lambda body: body["error"]),
        ("/v2/models/m/generate", {"text_input": "Hi"}, lambda body: body["error"]),
        ("/v2/models/m/generate_stream", {"text_input": "Hi"}, lambda body: body["error"]),
        ("/v1/chat/completions", CHAT, lambda body: body["error"]["message"]),
        ("/v1/chat/completions", {**CHAT, "stream": True}, lambda body: body["error"]["message"]),
        ("/v1/completions", {"model": "m", "prompt": "Hi"}, lambda b: b["error"]["message"]),
    ],
)
async def test_every_road_to_the_engine_asks_for_a_key_and_counts(serve, files, path, body, error):
    service, forward = await serve(keys_file=files.keys_file, plans_file=files.plans_file)
    bearer = {"authorization": f"Bearer {files.key}"}
    async with _rest(service) as client:
        for headers in ({}, {"authorization": "Bearer none"}, {"x-api-key": "kw_aaaaaaaa_x"}):
            refused = await client.post(path, json=body, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "a valid API key is needed" in error(refused.json())
        assert forward.requests == []
        answered = [await client.post(path, json=body, headers=bearer) for _ in range(4)]
    assert [answer.status_code for answer in answered] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answered] == [
        *("r=2", "r=1", "r=0", "r=0")
    ]
    assert answered[3].headers["retry-after"] == "1"
    assert "too many requests" in error(answered[3].json())
    assert {request.sampling.max_tokens for request in forward.requests} == {5}
    assert {context.tenant for context in forward.contexts} == {"acme"}
    assert "authorization" not in forward.contexts[0].forwarded()


async def test_health_and_metadata_need_no_key(serve, files):
    service, _ = await serve(keys_file=files.keys_file)
    async with _rest(service) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/m", "/v1/models"):
            assert (await client.get(path)).status_code == 200, path


async def test_a_key_comes_in_grpc_metadata(serve, files):
    service, _ = await serve(keys_file=files.keys_file, plans_file=files.plans_file)
    server = grpc.aio.server()
    register(InferenceServicer(service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"Hi")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            for metadata in (
                (("authorization", f"Bearer {files.key}"),),
                (("x-api-key", files.key),),
            ):
                call = stub.ModelInfer(request, metadata=metadata)
                assert (await call).outputs[0].contents.bytes_contents == [b"Hello"]
                assert "ratelimit" in dict(await call.trailing_metadata())
            with pytest.raises(grpc.aio.AioRpcError) as nobody:
                await stub.ModelInfer(request)
            await stub.ModelInfer(request, metadata=(("x-api-key", files.key),))
            with pytest.raises(grpc.aio.AioRpcError) as limited:
                await stub.ModelInfer(request, metadata=(("x-api-key", files.key),))
            assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    finally:
        await server.stop(0)
    assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert limited.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(limited.value.trailing_metadata())
    assert 0 < float(trailing["retry-after"]) <= 1
    assert trailing["ratelimit-policy"] == '"requests";q=60;w=60'


async def test_callers_without_a_key_have_a_plan_of_their_own(serve, files):
    service, forward = await serve(
        keys_file=files.keys_file, plans_file=files.plans_file, allow_anonymous=True
    )
    async with _rest(service) as client:
        statuses = [
            (await client.post("/v2/models/m/infer", json=INFER, headers=headers)).status_code
            for headers in (
                {},
                {},
                {"x-api-key": files.key},
                {"x-api-key": "kw_aaaaaaaa_" + "x" * 43},
            )
        ]
    assert statuses == [200, 429, 200, 401]
    assert [context.tenant for context in forward.contexts] == [None, "acme"]


async def test_neither_keys_nor_prompts_are_logged(serve, files, caplog):
    caplog.set_level("DEBUG")
    service, _ = await serve(keys_file=files.keys_file, plans_file=files.plans_file)
    async with _rest(service) as client:
        for _ in range(5):
            await client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": files.key})
        await client.post("/v1/completions", content=b"{secret prompt")
    secret = files.key.split("_", 2)[2]
    ours = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert not any(secret in line or "secret prompt" in line for line in ours)


async def test_pages_of_the_named_origins_may_call_and_read_the_limits(serve):
    service, _ = await serve(allow_anonymous=True)
    origin = "https://chat.example.org"
    async with _rest(service, [origin]) as client:
        asked = await client.options(
            "/v1/chat/completions",
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"origin": origin})
        other = await client.post(
            "/v1/chat/completions", json=CHAT, headers={"origin": "https://evil.example"}
        )
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert asked.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-origin"] == origin
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in other.headers


async def test_without_origins_no_page_may_read(serve):
    service, _ = await serve(allow_anonymous=True)
    async with _rest(service) as client:
        answer = await client.post(
            "/v1/chat/completions", json=CHAT, headers={"origin": "https://a.example"}
        )
    assert "access-control-allow-origin" not in answer.headers
