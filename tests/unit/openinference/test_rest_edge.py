"""Every route, over the fake service."""

import asyncio
import gzip

import httpx
import orjson
import pytest
from starlette.applications import Starlette

from openinference import errors
from openinference.generation import Chunk, Conversation, FinishReason
from openinference.rest import routes
from openinference.sampling import SamplingParams

TEXT = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}
INFER = {"inputs": [TEXT]}
GENERATE = {"text_input": "Hi"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETIONS = {"model": "m", "prompt": "Hi"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# Path and body of every way to ask for a whole answer, and for a stream.
WHOLE = [
    ("/v2/models/m/infer", INFER),
    ("/v2/models/m/generate", GENERATE),
    ("/openai/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT),
    ("/openai/v1/completions", COMPLETIONS),
    ("/v1/completions", COMPLETIONS),
]
STREAMS = [
    ("/v2/models/m/generate_stream", GENERATE),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/completions", {**COMPLETIONS, "stream": True}),
]
ALL = pytest.mark.parametrize(("path", "body"), WHOLE + STREAMS)


def message_of(answer):
    """The message of an error body, V2's or OpenAI's."""
    error = answer.json()["error"]
    return error["message"] if isinstance(error, dict) else error


def events_of(text):
    """The data of each event; [DONE] as that text."""
    assert text.endswith("\n\n")
    data = [event.removeprefix("data: ") for event in text.split("\n\n")[:-1]]
    return [each if each == "[DONE]" else orjson.loads(each) for each in data]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"status": "alive"}),
        (
            "/v2",
            {"name": "fake", "version": "1.2", "extensions": ["generate", "binary_tensor_data"]},
        ),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models", {"models": ["m"]}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
    ],
)
async def test_a_server_tells_about_itself(rest, path, body):
    answer = await rest.get(path)
    assert (answer.status_code, answer.json()) == (200, body)
    assert answer.headers["content-type"] == "application/json"


async def test_model_metadata_has_platform_and_tensors(rest):
    body = (await rest.get("/v2/models/m")).json()
    assert (body["name"], body["platform"]) == ("m", "fake")
    assert "versions" not in body
    assert body["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": [-1]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/ready", {"live": False, "ready": False}),
        ("/v2/models/m/ready", {"name": "m", "ready": False}),
    ],
)
async def test_not_ready_is_503(rest, service, path, body):
    service.ready = False
    answer = await rest.get(path)
    assert (answer.status_code, answer.json()) == (503, body)
    assert (await rest.get("/v2/health/live")).status_code == 200


async def test_not_live_is_503(rest, service):
    service.live = False
    answer = await rest.get("/v2/health/live")
    assert (answer.status_code, answer.json()) == (503, {"live": False})


async def test_the_index_lists_models_with_their_states_as_triton_does(rest, service):
    async def index(body):
        return (await rest.post("/v2/repository/index", content=body)).json()

    assert await index(b"") == [{"name": "m", "state": "READY"}]
    service.ready = False
    assert await index(b"{}") == [{"name": "m", "state": "UNAVAILABLE"}]
    assert await index(b'{"ready": true}') == []
    assert await index(b'{"ready": 1}') == {"error": "ready must be true or false"}


async def test_openais_models_are_listed(rest):
    listed = (await rest.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["m"]
    assert (await rest.get("/openai/v1/models/m")).json()["id"] == "m"
    answer = await rest.get("/v1/models/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_metrics_are_served(rest):
    await rest.post("/v2/models/m/infer", json=INFER)
    answer = await rest.get("/metrics")
    assert answer.status_code == 200
    assert 'keepwarm_requests_total{endpoint="infer",status="200"}' in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/v3", 404, "no such path: /v3"),
        ("GET", "/v2/", 404, "no such path: /v2/"),
        ("GET", "/v1/nothing", 404, "no such path: /v1/nothing"),
        ("POST", "/v2/repository/models/m/unload", 404, "no such path"),
        ("GET", "/v2/models/m/infer", 405, "method GET is not allowed here"),
        ("DELETE", "/v2/models/m", 405, "method DELETE is not allowed here"),
        ("GET", "/v1/chat/completions", 405, "method GET is not allowed here"),
        ("GET", "/v2/models/x", 404, "model 'x' not found"),
        ("GET", "/v2/models/x/ready", 404, "model 'x' not found"),
        ("GET", "/v2/models/m/versions/1", 404, "model 'm' has no version '1'"),
        ("GET", "/v2/models/m/versions/1/ready", 404, "model 'm' has no version '1'"),
    ],
)
async def test_what_is_not_there_is_told_in_the_protocols_error_body(
    rest, method, path, status, told
):
    answer = await rest.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert told in message_of(answer)
    assert isinstance(answer.json()["error"], dict) == path.startswith("/v1/")
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("action", ["infer", "generate", "generate_stream"])
@pytest.mark.parametrize("model", ["x", "m/versions/1"])
async def test_an_unknown_model_or_version_is_404(rest, model, action):
    body = INFER if action == "infer" else GENERATE
    answer = await rest.post(f"/v2/models/{model}/{action}", json=body)
    assert answer.status_code == 404


async def test_infer_answers_in_json(rest, service):
    body = {**INFER, "id": "a1", "parameters": {"max_tokens": "5", "temperature": 0}}
    answer = await rest.post("/v2/models/m/infer", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "m",
        "id": "a1",
        "outputs": [{"name": "text_output", "shape": [1], "datatype": "BYTES", "data": ["Hello"]}],
    }
    assert service.request.prompts == ("Hi",)
    assert service.request.sampling == SamplingParams(max_tokens=5, temperature=0.0)


async def test_infer_takes_and_gives_binary_data(rest, service):
    tensor = {
        "name": "text_input",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": 6},
    }
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    answer = await rest.post(
        "/v2/models/m/infer",
        content=head + b"\2\0\0\0Hi",
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == b"\5\0\0\0Hello"
    (output,) = orjson.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 9}
    assert "data" not in output
    assert service.request.prompts == ("Hi",)


async def test_generate_answers_with_text(rest):
    body = {**GENERATE, "id": "a1", "parameters": {"details": True}}
    assert (await rest.post("/v2/models/m/generate", json=body)).json() == {
        "model_name": "m",
        "text_output": "Hello",
        "id": "a1",
        "details": {
            "finish_reason": "length",
            "logprobs": [],
            "num_input_tokens": 3,
            "num_output_tokens": 2,
        },
    }


async def test_generate_stream_answers_with_events(rest, service):
    answer = await rest.post("/v2/models/m/generate_stream", json=GENERATE)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert events_of(answer.text) == [
        {"model_name": "m", "text_output": "Hel"},
        {"model_name": "m", "text_output": "lo", "finish_reason": "length"},
    ]
    assert service.request.stream


async def test_chat_answers_whole_and_in_events(rest, service):
    answer = await rest.post("/v1/chat/completions", json=CHAT)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert answer.json()["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
    }
    assert service.request.prompts == (Conversation(({"role": "user", "content": "Hi"},)),)
    options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    answer = await rest.post("/v1/chat/completions", json={**CHAT, **options})
    *events, usage, done = events_of(answer.text)
    assert done == "[DONE]"
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert [event["choices"][0]["delta"].get("content") for event in events] == (
        ["", "Hel", "lo", None] * 2
    )


async def test_completions_answer_in_events(rest):
    answer = await rest.post("/v1/completions", json={**COMPLETIONS, "stream": True})
    *events, done = events_of(answer.text)
    assert done == "[DONE]"
    assert [event["choices"][0]["text"] for event in events] == ["Hel", "lo"]


@ALL
async def test_request_id_and_traceparent_come_back(rest, service, path, body):
    headers = {"x-request-id": "abc", "traceparent": TRACEPARENT, "x-keepwarm-tenant": "acme"}
    answer = await rest.post(path, json=body, headers=headers)
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["traceparent"] == TRACEPARENT
    assert service.context[:5] == ("abc", None, TRACEPARENT, None, "acme")


@ALL
async def test_what_a_stage_says_goes_back_with_answers_and_errors(rest, service, path, body):
    service.reply_headers = {"ratelimit": '"requests";r=1;t=2', "x-cache": "miss"}
    for script in (None, [errors.Unavailable("the engine is full")]):
        service.script = script
        answer = await rest.post(path, json=body)
        assert answer.headers["ratelimit"] == '"requests";r=1;t=2'
        assert answer.headers["x-cache"] == "miss"


@ALL
async def test_a_service_knows_the_route_the_address_and_the_key(rest, service, path, body):
    headers = {"x-api-key": "kw_a_b", "x-forwarded-for": "1.2.3.4", "cache-control": "no-store"}
    await rest.post(path, json=body, headers=headers)
    caller = service.context.caller
    assert (caller.address, caller.forwarded_for) == ("127.0.0.1", "1.2.3.4")
    assert (caller.api_key, caller.cache_control) == ("kw_a_b", "no-store")
    assert path.endswith(caller.route.replace("_completions", "/completions"))


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2"), ("POST", "/v2/models/x/infer")])
async def test_answers_and_errors_alike_have_a_request_id(rest, method, path):
    answer = await rest.request(method, path, json=INFER)
    assert len(answer.headers["x-request-id"]) == 32
    assert "traceparent" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/m/infer", 400),
        ("/v2/models/m/generate", 422),
        ("/v2/models/m/generate_stream", 422),
        ("/v1/chat/completions", 400),
        ("/v1/completions", 400),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs": [7]}'])
async def test_bad_input_is_400_and_422_for_generate(rest, service, path, status, body):
    answer = await rest.post(path, content=body)
    assert answer.status_code == status
    assert message_of(answer)
    assert service.calls == []


@ALL
@pytest.mark.parametrize("seconds", ["0", "soon"])
async def test_an_unusable_deadline_is_bad_input(rest, path, body, seconds):
    answer = await rest.post(path, json=body, headers={"x-request-timeout": seconds})
    assert answer.status_code == (422 if "generate" in path else 400)
    assert "X-Request-Timeout" in message_of(answer)


@ALL
async def test_every_error_of_the_service_has_its_status(rest, service, every_error, path, body):
    for error in every_error:
        service.script = [error]
        answer = await rest.post(path, json=body)
        status = error.http_status
        assert answer.status_code == (422 if status == 400 and "generate" in path else status)
        assert message_of(answer) == error.message
        assert answer.headers.get("retry-after") == (None if error.retry_after_s is None else "3")


@ALL
async def test_a_bug_is_500_and_tells_no_internals(rest, service, path, body):
    service.script = [ValueError("secret")]
    answer = await rest.post(path, json=body)
    assert (answer.status_code, message_of(answer)) == (500, "internal error")
    assert "secret" not in answer.text


@ALL
async def test_an_answer_without_chunks_is_500(rest, service, path, body):
    service.script = []
    assert (await rest.post(path, json=body)).status_code == 500


@pytest.mark.parametrize(("path", "body"), STREAMS)
@pytest.mark.parametrize(
    "problem", [errors.Unavailable("the engine has ended"), ValueError("secret")]
)
async def test_an_error_after_the_first_event_is_the_last_event(rest, service, path, body, problem):
    service.script = [Chunk(0, "Hel", 3, 1), problem]
    answer = await rest.post(path, json=body)
    assert answer.status_code == 200
    *events, last = events_of(answer.text)
    assert events
    told = problem.message if isinstance(problem, errors.ServingError) else "internal error"
    assert (last["error"]["message"] if path.startswith("/v1") else last["error"]) == told
    assert "secret" not in answer.text
    assert "[DONE]" not in answer.text


@ALL
async def test_past_the_deadline_is_504_and_the_work_is_closed(rest, service, path, body):
    service.script = [asyncio.Event()]
    answer = await rest.post(path, json=body, headers={"x-request-timeout": "0.02"})
    assert answer.status_code == 504
    assert "deadline" in message_of(answer)
    await service.until_ended()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/m/infer", {**INFER, "parameters": {"timeout": 20_000}}),
        ("/v2/models/m/generate", {**GENERATE, "parameters": {"timeout": 20_000}}),
        ("/v2/models/m/generate_stream", {**GENERATE, "parameters": {"timeout": 20_000}}),
    ],
)
async def test_tritons_timeout_is_a_deadline_too(rest, service, path, body):
    service.script = [asyncio.Event()]
    assert (await rest.post(path, json=body)).status_code == 504


async def test_past_the_deadline_a_begun_stream_ends_with_an_error_event(rest, service):
    service.script = [Chunk(0, "Hel", 3, 1), asyncio.Event()]
    answer = await rest.post(
        "/v2/models/m/generate_stream", json=GENERATE, headers={"x-request-timeout": "0.05"}
    )
    assert events_of(answer.text)[-1] == {"error": "the request's deadline has passed"}


async def test_a_caller_can_only_shorten_the_servers_own_bound(service):
    service.max_timeout_s = 0.02
    service.script = [asyncio.Event()]
    app = Starlette(routes=routes(service, max_body_bytes=4096, openai=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        answer = await client.post(
            "/v2/models/m/infer", json=INFER, headers={"x-request-timeout": "1000"}
        )
    assert answer.status_code == 504


@ALL
async def test_a_body_over_the_limit_is_413(rest, path, body):
    answer = await rest.post(path, content=b"x" * 5000)
    assert answer.status_code == 413
    assert message_of(answer) == "body is over the limit of 4096 bytes"
    bomb = gzip.compress(bytes(10**6))
    answer = await rest.post(path, content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413


@ALL
async def test_a_compressed_body_is_read(rest, path, body):
    for content, encoding, status in (
        (gzip.compress(orjson.dumps(body)), "gzip", 200),
        (b"not gzip", "gzip", 422 if "generate" in path else 400),
        (b"x", "br", 415),
    ):
        answer = await rest.post(path, content=content, headers={"content-encoding": encoding})
        assert answer.status_code == status


async def test_a_sequence_missing_in_the_answer_is_500(rest, service):
    service.script = [Chunk(0, "Hello", 3, 2, FinishReason.EOS)]
    body = {"inputs": [{**TEXT, "shape": [2], "data": ["Hi", "Ho"]}]}
    assert (await rest.post("/v2/models/m/infer", json=body)).status_code == 500


def _post(path, body):
    content = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@ALL
async def test_a_client_that_leaves_ends_the_work(rest_address, service, path, body):
    service.script = [asyncio.Event()]
    _, writer = await asyncio.open_connection(*rest_address)
    writer.write(_post(path, body))
    await service.began.wait()
    assert not service.ended.is_set()
    writer.close()
    await service.until_ended()


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_events_come_as_they_are_made_and_leaving_ends_the_work(
    rest_address, service, path, body
):
    service.script = [Chunk(0, "Hel", 3, 1), asyncio.Event()]
    reader, writer = await asyncio.open_connection(*rest_address)
    writer.write(_post(path, body))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.readuntil(b"Hel")
    assert not service.ended.is_set()
    writer.close()
    await service.until_ended()


async def test_a_real_connection_carries_a_whole_stream(rest_address):
    reader, writer = await asyncio.open_connection(*rest_address)
    writer.write(_post("/v2/models/m/generate_stream", GENERATE))
    answer = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert answer.count(b"data: {") == 2
    writer.close()
    await writer.wait_closed()


async def test_a_body_over_the_limit_is_answered_before_it_is_whole(rest_address):
    reader, writer = await asyncio.open_connection(*rest_address)
    head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"1388\r\n" + b"x" * 5000 + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_a_slow_reader_that_leaves_has_its_work_closed_before_the_call_ends(
    app, service, path, body
):
    service.script = [Chunk(0, "Hel", 3, 1)] * 9
    stuck = asyncio.Event()
    messages = iter([{"type": "http.request", "body": orjson.dumps(body), "more_body": False}])

    async def receive():
        for message in messages:
            return message
        await stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert service.ended.is_set()
