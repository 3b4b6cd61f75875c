"""One transformer with a table of names in front of two predictors, all of them real processes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from fixed_predictor import answer

from openinference.proto import inference_pb2 as pb

from .requests import ENDLESS, Client, stub
from .servers import MODEL, Server

TOKENS = "fixed_engine_tokens_total"


def _generate(transformer: Server, model: str, prompt: str, tokens: int = 3) -> httpx.Response:
    body = {"text_input": prompt, "parameters": {"max_tokens": tokens, "temperature": 0}}
    return httpx.post(f"{transformer.url}/v2/models/{model}/generate", json=body, timeout=30)


def _get(transformer: Server, path: str) -> Any:
    return httpx.get(f"{transformer.url}{path}").json()


async def test_two_predictors_answer_under_their_names_and_one_that_dies_leaves_the_other_alone(
    start_predictor: Callable[..., Server],
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
    tmp_path: Path,
) -> None:
    one, other = start_predictor("--weights=a"), start_predictor("--weights=b")
    table = tmp_path / "models.yaml"
    # Both call their model MODEL; callers tell them apart.
    table.write_text(
        f"""
models:
  {MODEL}:
  second: {{predictor: "{other.target}", predictor_name: {MODEL}}}
  alias: {{predictor_name: {MODEL}}}
"""
    )
    transformer = start_transformer(one.target, f"--models_file={table}", "--unreachable_hold_s=0")
    index = _get(transformer, "/openai/v1/models")["data"]
    assert [each["id"] for each in index] == [MODEL, "second", "alias"]

    for name, worked, idle in ((MODEL, one, other), ("second", other, one), ("alias", one, other)):
        before = worked.metric(TOKENS), idle.metric(TOKENS)
        got = _generate(transformer, name, "Hi")
        assert (got.status_code, got.headers["x-cache"]) == (200, "miss")
        assert got.json()["text_output"] == answer("Hi", 3)
        assert (worked.metric(TOKENS), idle.metric(TOKENS)) == (before[0] + 3, before[1])
        assert _generate(transformer, name, "Hi").headers["x-cache"] == "hit"
    assert _generate(transformer, "third", "Hi").status_code == 404

    async with client_of(transformer).stream("generate_stream", "Long", ENDLESS) as stream:
        await stream.next()
        other.kill()
        await asyncio.to_thread(_generate, transformer, "second", "Hello")
        refused = await asyncio.to_thread(_generate, transformer, "second", "Hello")
        assert refused.status_code == 503
        assert "model 'second'" in refused.json()["error"]
        # The stream of the one goes on, and so do new requests for it.
        assert "error" not in await stream.next()
        served = await asyncio.to_thread(_generate, transformer, MODEL, "Hello")
        assert served.json()["text_output"] == answer("Hello", 3)
    states = {
        name: _get(transformer, f"/v2/models/{name}/status")["state"]
        for name in (MODEL, "second", "alias")
    }
    assert states[MODEL] == states["alias"] == "ready"
    assert states["second"] != "ready"
    async with stub(transformer) as call:
        assert (await call.ModelReady(pb.ModelReadyRequest(name="alias"))).ready
