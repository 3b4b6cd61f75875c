"""The service over a fake engine; the real one is for the integration tests."""

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

import vllm_predictor
from openinference import errors
from openinference.context import RequestContext
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams
from openinference.server.lifecycle import Lifecycle
from vllm_predictor import engine_events
from vllm_predictor import service as predictor_service
from vllm_predictor.service import EngineEnded, PredictorService
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.startup import Phase, Startup
from vllm_predictor.weights import weights_id

REQUEST = GenerationRequest("m", ("Hi",), SamplingParams(), stream=False)
CONTEXT = RequestContext("abc", traceparent="trace")


class FakeEngine:
    """An engine that loads when `may_load` is set and answers "Hello"."""

    def __init__(self):
        self.may_load = threading.Event()
        self.is_dead = False
        self.shut_down = False
        self.calls = []

    def build(self, settings, on_config, *, early=None):
        on_config()
        assert self.may_load.wait(30)
        return self

    async def generate(
        self, request, request_id, *, adapter=None, traceparent=None, on_scheduled=None
    ):
        self.calls.append((request, request_id, traceparent))
        if on_scheduled:
            on_scheduled(0.25)
        yield Chunk(0, "Hello", 1, 1, FinishReason.EOS)

    async def load_adapter(self, adapter):
        pass

    async def unload_adapter(self, adapter):
        pass

    def shutdown(self):
        self.shut_down = True


class WatchedStartup(Startup):
    """A Startup that tells each phase as it is entered, and None at the end."""

    def __init__(self):
        super().__init__(0.0)
        self.entered = asyncio.Queue()

    def enter(self, phase, now):
        super().enter(phase, now)
        self.entered.put_nowait(phase)

    def finish(self, now):
        super().finish(now)
        self.entered.put_nowait(None)


@pytest.fixture
def engine(monkeypatch, tmp_path):
    fake = FakeEngine()
    monkeypatch.setenv(engine_events.EVENTS_FILE, str(tmp_path / "events"))
    monkeypatch.setattr(predictor_service, "POLL_S", 0.001)
    # A finder would stay in this process.
    monkeypatch.setattr(predictor_service.engine_ahead, "defer_imports", lambda _: None)
    module = SimpleNamespace(build=fake.build)
    monkeypatch.setattr(vllm_predictor, "engine", module, raising=False)
    yield fake
    fake.may_load.set()


@pytest.fixture
def life():
    return Lifecycle()


@pytest.fixture
def startup():
    return WatchedStartup()


@pytest.fixture
def model_dir(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def service(startup, life, model_dir):
    return PredictorService(PredictorSettings(model_name="m", model_dir=model_dir), startup, life)


@pytest.fixture
async def running(service, startup, engine):
    """The task of a service whose engine is warmed up."""
    engine.may_load.set()
    task = asyncio.create_task(service.run())
    while await startup.entered.get() is not None:
        pass
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_while_it_starts_a_model_is_not_ready_and_answers_503_with_the_phase(service):
    assert await service.is_live()
    assert not await service.is_ready()
    assert not await service.is_model_ready("m", None)
    with pytest.raises(errors.Unavailable, match=r"^model 'm' is starting \(phase import\)$") as e:
        service.generate(REQUEST, None, CONTEXT)
    assert e.value.retry_after_s
    assert (e.value.reason, e.value.phase) == (errors.Reason.STARTING, "import")
    status = await service.model_status("m", None)
    assert (status.state, status.phase) == ("starting", "import")
    assert status.elapsed_s > 0


async def test_what_the_engine_did_ahead_of_us_takes_none_of_our_time(
    service, startup, engine, tmp_path
):
    (tmp_path / "events").write_text(f"weights_begin {startup.began}\n")
    task = asyncio.create_task(service.run())
    engine.may_load.set()
    while await startup.entered.get() is not None:
        pass
    assert min(startup.seconds.values()) >= 0
    task.cancel()


async def test_the_phases_follow_the_engine(service, startup, engine, tmp_path):
    def report(event):
        with (tmp_path / "events").open("a") as events:
            events.write(f"{event} {asyncio.get_running_loop().time()}\n")

    task = asyncio.create_task(service.run())
    assert await startup.entered.get() is Phase.CONFIG
    assert await startup.entered.get() is Phase.ENGINE
    report("weights_begin")
    assert await startup.entered.get() is Phase.WEIGHTS
    report("weights_end")
    assert await startup.entered.get() is Phase.ENGINE
    engine.may_load.set()
    assert await startup.entered.get() is Phase.WARMUP
    assert await startup.entered.get() is None
    assert all(seconds >= 0 for seconds in startup.seconds.values())
    engine.is_dead = True
    with pytest.raises(EngineEnded):
        await task


async def test_a_warmed_up_engine_answers(service, engine, running):
    assert await service.is_model_ready("m", None)
    assert [chunk.text async for chunk in service.generate(REQUEST, None, CONTEXT)] == ["Hello"]
    warm_up, request = engine.calls
    assert warm_up[0].sampling.temperature == 0
    assert request == (REQUEST, "abc", "trace")


async def test_a_ready_model_says_so_and_how_long_the_engine_made_it_wait(service, running):
    context = RequestContext("abc")
    assert [chunk.text async for chunk in service.generate(REQUEST, None, context)] == ["Hello"]
    metadata = await service.model_metadata("m", None)
    assert context.reply.headers == {
        "x-keepwarm-queue-ms": "250",
        "x-keepwarm-weights": metadata.properties["weights_id"],
    }
    assert (await service.model_status("m", None)).state == "ready"


async def test_an_adapters_answer_names_the_models_weights_and_its_own(
    startup, life, engine, model_dir, make_adapter
):
    folder = make_adapter("a")
    settings = PredictorSettings(
        model_name="m", model_dir=model_dir, adapters_dir=folder.parent, max_adapters=1
    )
    service = PredictorService(settings, startup, life)
    engine.may_load.set()
    task = asyncio.create_task(service.run())
    while await startup.entered.get() is not None:
        pass
    told = {}
    for model in ("m", "a"):
        context = RequestContext("abc")
        request = replace(REQUEST, model=model)
        assert [chunk.text async for chunk in service.generate(request, None, context)]
        told[model] = context.reply.headers["x-keepwarm-weights"]
    assert told["a"] == f"{told['m']}-{weights_id(folder)}"
    assert told["a"] == (await service.model_metadata("a", None)).properties["weights_id"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_full_engine_refuses_before_the_first_chunk(startup, life, engine, model_dir):
    settings = PredictorSettings(model_name="m", model_dir=model_dir, max_num_queued_reqs=2)
    service = PredictorService(settings, startup, life)
    engine.may_load.set()
    task = asyncio.create_task(service.run())
    while await startup.entered.get() is not None:
        pass
    open_streams = [service.generate(REQUEST, None, CONTEXT) for _ in range(3)]
    for stream in open_streams[:2]:
        await anext(stream)
    with pytest.raises(errors.Unavailable, match=r"^the engine is full: 2 sequences") as e:
        await anext(open_streams[2])
    assert e.value.reason is errors.Reason.FULL
    assert e.value.retry_after_s >= 1
    await open_streams[0].aclose()
    assert [chunk.text async for chunk in service.generate(REQUEST, None, CONTEXT)] == ["Hello"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_while_it_drains_it_is_not_ready_and_still_answers(service, life, running):
    life.stop()
    assert not await service.is_ready()
    assert [chunk.text async for chunk in service.generate(REQUEST, None, CONTEXT)] == ["Hello"]


async def test_an_engine_that_dies_ends_the_service(service, engine, running):
    engine.is_dead = True
    with pytest.raises(EngineEnded):
        await running
    assert engine.shut_down
    assert not await service.is_ready()
    with pytest.raises(errors.Unavailable, match=r"^model 'm' has stopped$"):
        service.generate(REQUEST, None, CONTEXT)


async def test_an_engine_that_does_not_load_ends_the_service(service, engine, monkeypatch):
    def build(settings, on_config, *, early=None):
        raise ValueError("no such weights")

    monkeypatch.setattr(vllm_predictor, "engine", SimpleNamespace(build=build), raising=False)
    with pytest.raises(ValueError, match="no such weights"):
        await service.run()


async def test_another_model_and_any_version_are_not_found(service):
    for model, version in (("x", None), ("m", "1")):
        with pytest.raises(errors.NotFound):
            await service.is_model_ready(model, version)
        with pytest.raises(errors.NotFound):
            await service.model_metadata(model, version)
    with pytest.raises(errors.NotFound):
        service.generate(REQUEST, "1", CONTEXT)


def test_only_the_engine_imports_vllm():
    script = """
import sys
import vllm_predictor.service, vllm_predictor.engine_events, vllm_predictor.settings
assert not {"vllm", "torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
