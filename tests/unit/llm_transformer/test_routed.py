"""Several predictors behind one transformer: who is asked for what, and who is not disturbed."""

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from llm_transformer import stages
from llm_transformer.auth import Authenticator
from llm_transformer.cache.assembly import cached_forward
from llm_transformer.routed import routed_forward
from llm_transformer.service import TransformerService
from llm_transformer.settings import TransformerSettings
from openinference.errors import FailedDependency
from openinference.generation import Chunk, FinishReason
from openinference.rest import routes
from openinference.server.lifecycle import Lifecycle

FILE = """
models:
  chat: {{predictor: "{first}"}}
  chat-support: {{predictor: "{first}", predictor_name: support}}
  lost: {{predictor: "127.0.0.1:1"}}
"""


@pytest.fixture
async def rest(service, grpc_target, tmp_path):
    """The transformer's REST before one fake predictor with an adapter, and one that is away."""
    service.models = ("chat", "support")
    path = tmp_path / "models.yaml"
    path.write_text(FILE.format(first=grpc_target))
    settings = TransformerSettings(
        models_file=str(path), unreachable_hold_s=0, enable_predictor_health_check=True
    )
    table = stages.served_models(settings)
    async with (
        routed_forward(settings, table, None) as forward,
        cached_forward(settings, table, forward, None) as cached,
    ):
        auth = Authenticator(None, allow_anonymous=True)
        served = TransformerService(settings, cached, Lifecycle(), auth=auth, table=table)
        app = Starlette(routes=routes(served, max_body_bytes=4096, openai=True))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def _generate(rest, model, **parameters):
    body = {"text_input": "Hi", "parameters": {"temperature": 0, **parameters}}
    return rest.post(f"/v2/models/{model}/generate", json=body)


async def test_the_predictor_hears_its_own_name_and_the_caller_the_one_he_used(rest, service):
    for name, known_as in (("chat", "chat"), ("chat-support", "support")):
        answer = await _generate(rest, name)
        assert answer.json()["model_name"] == name
        assert service.calls[-1][0].model == known_as


async def test_an_adapter_and_its_base_keep_their_answers_apart(rest, service):
    texts = {"chat": "plain", "support": "helpful"}
    for name, known_as in (("chat", "chat"), ("chat-support", "support"), ("chat", "chat")):
        text = texts[known_as]
        service.reply_headers = {"x-keepwarm-weights": f"w-{known_as}"}
        service.script = [Chunk(0, text, 2, 3, FinishReason.EOS)]
        assert (await _generate(rest, name)).json()["text_output"] == text
    assert len(service.calls) == 2


async def test_new_files_of_an_adapter_make_its_kept_answers_unreachable(rest, service):
    for number, (weights, text) in enumerate((("base-a1", "old"), ("base-a2", "new")), start=1):
        service.reply_headers = {"x-keepwarm-weights": weights}
        service.script = [Chunk(0, text, 2, 3, FinishReason.EOS)]
        # Any answer of the adapter tells of the change.
        await _generate(rest, "chat-support", max_tokens=number)
        assert (await _generate(rest, "chat-support")).json()["text_output"] == text
        service.script = None
        assert (await _generate(rest, "chat-support")).headers["x-cache"] == "hit"


async def test_only_the_names_of_the_table_are_served(rest, service):
    models = (await rest.get("/openai/v1/models")).json()["data"]
    assert [each["id"] for each in models] == ["chat", "chat-support", "lost"]
    for name in ("support", "model", "nobody"):
        assert (await _generate(rest, name)).status_code == 404
        assert (await rest.get(f"/v2/models/{name}")).status_code == 404
        assert (await rest.get(f"/v2/models/{name}/status")).status_code == 404
    assert (await rest.get("/v2/models/chat-support")).json()["name"] == "chat-support"
    assert service.calls == []


async def test_a_predictor_that_is_away_disturbs_only_who_asks_for_it(rest, service):
    assert (await _generate(rest, "lost")).status_code == 503
    assert (await _generate(rest, "chat")).status_code == 200
    states = {
        name: (await rest.get(f"/v2/models/{name}/status")).json()["state"]
        for name in ("chat", "chat-support", "lost")
    }
    assert states["chat"] == states["chat-support"] == "ready"
    assert states["lost"] != "ready"
    ready = {
        name: (await rest.get(f"/v2/models/{name}/ready")).status_code == 200
        for name in ("chat", "chat-support", "lost")
    }
    assert ready == {"chat": True, "chat-support": True, "lost": False}
    assert (await rest.get("/v2/health/ready")).status_code == 503
    told = {
        name: REGISTRY.get_sample_value(
            "keepwarm_predictor_state", {"model": name, "state": "ready"}
        )
        for name in ("chat", "lost")
    }
    assert told == {"chat": 1, "lost": 0}


async def test_a_broken_adapter_is_a_424_and_its_base_answers_on(rest, service):
    service.script = [FailedDependency("adapter 'support' cannot be loaded: it is torn")]
    assert (await _generate(rest, "chat-support")).status_code == 424
    service.script = None
    assert (await _generate(rest, "chat")).status_code == 200


def test_a_models_file_that_cannot_be_meant_ends_the_start_with_a_sentence(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text("models: {a: {host: p}}")
    with pytest.raises(SystemExit, match=r"^llm_transformer: --models_file: .*models.a.host"):
        stages.served_models(TransformerSettings(models_file=str(path)))
