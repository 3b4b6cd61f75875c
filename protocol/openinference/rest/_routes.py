"""The routes: paths of OIP inference_rest.md, generate_rest.yaml and OpenAI's API reference."""

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson
from starlette.routing import Route

from openinference import openai_json, sse, text_tensors, v2_json
from openinference.context import Cached
from openinference.deadlines import bounded, collect_until_deadline, until_deadline
from openinference.errors import InvalidInput, NotFound
from openinference.generate_json import GenerateCall
from openinference.generation import Chunk, Completion, GenerationRequest, Usage, collected
from openinference.messages import Parameters
from openinference.openai_json import OpenAICall
from openinference.repeats import Keeper, Repeat
from openinference.rest._answer import Answer, json_answer
from openinference.rest._endpoint import Call, Endpoint, EventStream, Handler
from openinference.service import InferenceService, repository_index

# Headers whose values differ from request to request, and one that our answer would depend on.
_NEVER_ALIKE = frozenset({"tracestate", "origin"})
OPENAI_PREFIXES = ("/openai/v1", "/v1")


def routes(service: InferenceService, *, max_body_bytes: int, openai: bool) -> list[Route]:
    """All routes over `service`; `max_body_bytes` bounds a body before and after decompression."""
    edge = _Edge(service)

    def endpoint(name: str, handler: Handler, **options: Any) -> Endpoint:
        return Endpoint(
            name,
            handler,
            max_timeout_s=service.max_timeout_s,
            max_body_bytes=max_body_bytes,
            **options,
        )

    generate_errors: dict[str, Any] = {"invalid_status": 422}
    table: list[tuple[str, str, Endpoint]] = [
        (
            "POST",
            "/v2/repository/index",
            endpoint("repository_index", edge.repository_index),
        ),
        ("GET", "/v2", endpoint("server_metadata", edge.server_metadata)),
        ("GET", "/v2/health/live", endpoint("live", edge.live)),
        ("GET", "/v2/health/ready", endpoint("ready", edge.ready)),
        ("GET", "/v2/models", endpoint("models", edge.models)),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        table += [
            ("GET", model, endpoint("model_metadata", edge.model_metadata)),
            ("GET", f"{model}/ready", endpoint("model_ready", edge.model_ready)),
            ("GET", f"{model}/status", endpoint("model_status", edge.model_status)),
            ("POST", f"{model}/infer", endpoint("infer", edge.infer)),
            ("POST", f"{model}/generate", endpoint("generate", edge.generate, **generate_errors)),
            (
                "POST",
                f"{model}/generate_stream",
                endpoint("generate_stream", edge.generate_stream, **generate_errors),
            ),
        ]
    errors: dict[str, Any] = {"error_body": openai_json.error}
    for prefix in OPENAI_PREFIXES if openai else ():
        table += [
            ("GET", f"{prefix}/models", endpoint("openai_models", edge.openai_models, **errors)),
            (
                "GET",
                f"{prefix}/models/{{model}}",
                endpoint("openai_model", edge.openai_model, **errors),
            ),
            (
                "POST",
                f"{prefix}/chat/completions",
                endpoint("chat_completions", edge.chat_completions, **errors),
            ),
            ("POST", f"{prefix}/completions", endpoint("completions", edge.completions, **errors)),
        ]
    # A request is compared with one route after another: the work comes before what only asks.
    table.sort(key=lambda route: route[0] != "POST")
    return [Route(path, app, methods=[method], name=app.name) for method, path, app in table]


class _Edge:
    """The handlers."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._created = int(time.time())

    async def live(self, call: Call) -> Answer:
        live = await self._service.is_live()
        return json_answer({"live": live}, 200 if live else 503)

    async def ready(self, call: Call) -> Answer:
        # OIP's text names the member `live`, KServe's client reads `ready`: both are there.
        ready = await self._service.is_ready()
        return json_answer({"live": ready, "ready": ready}, 200 if ready else 503)

    async def server_metadata(self, call: Call) -> Answer:
        return json_answer(v2_json.server_metadata(self._service.metadata))

    async def models(self, call: Call) -> Answer:
        return json_answer({"models": list(self._service.models)})

    async def repository_index(self, call: Call) -> Answer:
        # Source: Triton extension_model_repository.md "Index"; of that extension we offer no more.
        asked = v2_json.load_object(call.body) if call.body else {}
        only_ready = asked.get("ready")
        if only_ready is not None and not isinstance(only_ready, bool):
            raise InvalidInput("ready must be true or false")
        return json_answer(
            [
                {"name": name, "state": state}
                for name, state in await repository_index(
                    self._service, only_ready=bool(only_ready)
                )
            ]
        )

    async def model_metadata(self, call: Call) -> Answer:
        metadata = await self._service.model_metadata(*_model_of(call))
        return json_answer(v2_json.model_metadata(metadata))

    async def model_ready(self, call: Call) -> Answer:
        model, version = _model_of(call)
        ready = await self._service.is_model_ready(model, version)
        return json_answer({"name": model, "ready": ready}, 200 if ready else 503)

    async def model_status(self, call: Call) -> Answer:
        model, version = _model_of(call)
        status = await self._service.model_status(model, version)
        return json_answer(v2_json.model_status(model, status))

    async def infer(self, call: Call) -> Answer:
        model, version = _model_of(call)
        header_length = call.headers.get(v2_json.HEADER_LENGTH)
        infer = (
            text_tensors.raw_request(model, version, call.body)
            if header_length == "0"
            else v2_json.infer_request(model, version, call.body, header_length)
        )
        request = text_tensors.generation_request(infer, stream=False)
        completions = await self._completions(request, version, call, infer.parameters)
        body, json_length = v2_json.infer_response(
            infer, text_tensors.infer_response(infer, version, completions)
        )
        if json_length is None:
            self._remember(
                call,
                request,
                version,
                lambda again: v2_json.infer_response(
                    infer, text_tensors.infer_response(infer, version, again)
                )[0],
            )
            return Answer(body)
        return Answer(
            body,
            media_type="application/octet-stream",
            headers={v2_json.HEADER_LENGTH: str(json_length)},
        )

    async def generate(self, call: Call) -> Answer:
        model, version = _model_of(call)
        generate = GenerateCall(model, v2_json.load_object(call.body), stream=False)
        (completion,) = await self._completions(
            generate.request, version, call, generate.parameters
        )
        self._remember(
            call,
            generate.request,
            version,
            lambda again: orjson.dumps(generate.answer(again[0])),
        )
        return json_answer(generate.answer(completion))

    async def generate_stream(self, call: Call) -> EventStream:
        model, version = _model_of(call)
        generate = GenerateCall(model, v2_json.load_object(call.body), stream=True)
        chunks = self._chunks(generate.request, version, call, generate.parameters)
        return EventStream(chunks, generate.encoded_events)

    async def openai_models(self, call: Call) -> Answer:
        return json_answer(openai_json.models(self._service.models, self._created))

    async def openai_model(self, call: Call) -> Answer:
        model = call.path["model"]
        if model not in self._service.models:
            raise NotFound(f"model {model!r:.80} not found")
        return json_answer(openai_json.model(model, self._created))

    async def chat_completions(self, call: Call) -> Answer | EventStream:
        return await self._openai(openai_json.Endpoint.CHAT, call)

    async def completions(self, call: Call) -> Answer | EventStream:
        return await self._openai(openai_json.Endpoint.COMPLETIONS, call)

    async def _openai(self, endpoint: openai_json.Endpoint, call: Call) -> Answer | EventStream:
        openai = OpenAICall(endpoint, v2_json.load_object(call.body))
        if not openai.stream:
            completions = await self._completions(openai.request, None, call, {})
            self._remember(
                call,
                openai.request,
                None,
                lambda again: orjson.dumps(openai.content(again))[1:],
                opening=openai.opening,
            )
            return json_answer(openai.answer(completions))
        chunks = self._chunks(openai.request, None, call, {})
        usage = Usage(openai.request.sampling.n)

        def events(chunk: Chunk) -> bytes:
            usage.add(chunk)
            return openai.encoded_events(chunk)

        def end() -> bytes:
            event = openai.usage_event(usage)
            return (sse.event(event) if event is not None else b"") + sse.DONE

        return EventStream(chunks, events, end)

    def _remember(
        self,
        call: Call,
        request: GenerationRequest,
        version: str | None,
        format_: Callable[[list[Completion]], bytes],
        *,
        opening: Callable[[], bytes] = bytes,
    ) -> None:
        """Notes what the request said, when the service had the answer at hand."""
        service, context = self._service, call.context
        if (
            call.candidate is None
            or context.reply.cached is not Cached.HIT
            or not isinstance(service, Keeper)
            or not _NEVER_ALIKE.isdisjoint(call.headers)
        ):
            return
        call.candidate.keep(
            Repeat(
                service,
                call.endpoint,
                request,
                version,
                context,
                lambda chunks: format_(collected(request, chunks)),
                opening,
            )
        )

    async def _completions(
        self, request: GenerationRequest, version: str | None, call: Call, parameters: Parameters
    ) -> list[Completion]:
        context = bounded(call.context, parameters)
        chunks = self._service.generate(request, version, context)
        return await collect_until_deadline(request, chunks, context)

    def _chunks(
        self, request: GenerationRequest, version: str | None, call: Call, parameters: Parameters
    ) -> AsyncGenerator[Chunk, None]:
        context = bounded(call.context, parameters)
        return until_deadline(self._service.generate(request, version, context), context)


def _model_of(call: Call) -> tuple[str, str | None]:
    return call.path["model"], call.path.get("version")
