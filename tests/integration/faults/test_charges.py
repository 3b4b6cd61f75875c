"""With limits on: what a fault costs its caller, and who is served first."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fixed_predictor import answer

from openinference import key_file
from openinference.api_keys import new_key

from .requests import ENDLESS, STREAMS, Client
from .servers import Server

CHARGED = "keepwarm_limit_tokens_charged_total"
RESERVED = "keepwarm_limit_tokens_reserved_total"
PLANS = """
plans:
  anonymous:
    concurrent: 2
    tokens: {limit: 1000000, burst: 1000000}
"""

StartPredictor = Callable[..., Server]
StartTransformer = Callable[..., Server]
ClientOf = Callable[[Server], Client]


@pytest.fixture
def metered(tmp_path: Path) -> str:
    """The flag of a plan that counts tokens and gives two places."""
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    return f"--plans_file={file}"


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_its_predictor_breaks_off_costs_what_it_brought(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    metered: str,
    kind: str,
) -> None:
    predictor = start_predictor()
    transformer = start_transformer(predictor.target, metered)
    client = client_of(transformer)
    async with client.stream(kind, "two words", ENDLESS) as stream:
        for _ in range(5):
            await stream.next()
        predictor.kill()
        broken = await stream.rest()
    assert broken.error is not None
    tokens = len(broken.text.split())
    assert tokens >= 5
    assert transformer.metric(RESERVED) > ENDLESS
    assert transformer.metric(CHARGED) == 2 + tokens


async def test_what_had_no_token_costs_nothing_and_a_repeat_costs_once(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    metered: str,
) -> None:
    first = start_predictor("--slots=1")
    transformer = start_transformer(first.target, metered, "--unreachable_hold_s=60")
    client = client_of(transformer)
    async with client.stream("generate_stream", "begun", ENDLESS) as begun:
        await begun.next()
        repeated = asyncio.create_task(client.ask("generate_stream", "is repeated", 3))
        in_flight = 'keepwarm_requests_in_flight{endpoint="grpc_ModelStreamInfer"}'
        async with asyncio.timeout(20):
            while first.metric(in_flight) < 2:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)
        first.kill()
        broken = await begun.rest()
    given_up = await client.ask("generate_stream", "given up", 3, {"x-request-timeout": "0.5"})
    assert given_up.status == 503
    start_predictor(grpc=first.grpc)
    assert (await repeated).text == answer("is repeated", 3)
    assert transformer.metric(
        'keepwarm_predictor_retries_total{allowed="true",cause="unreachable",model="model"}'
    )
    assert transformer.metric(CHARGED) == (1 + len(broken.text.split())) + 0 + (2 + 3)
    # Both places of the plan are free again.
    answers = await asyncio.gather(*(client.ask("generate", f"{n}", 1) for n in range(2)))
    assert {each.status for each in answers} == {200}


async def test_interactive_work_goes_before_batch_work_that_came_first(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    tmp_path: Path,
) -> None:
    made = {name: new_key(tenant="a", priority=p) for name, p in (("batch", -10), ("chat", 0))}
    keys_file = tmp_path / "keys.yaml"
    keys_file.write_text(key_file.dump([key for _, key in made.values()]))
    transformer = start_transformer(
        start_predictor("--slots=1").target,
        *(f"--keys_file={keys_file}", "--predictor_concurrency=1", "--queue_target_s=60"),
    )
    client = client_of(transformer)
    served: list[str] = []

    async def ask(name: str) -> None:
        key = {"authorization": f"Bearer {made[name][0]}"}
        # Long enough that the engine's one slot, not the order on the wire, decides.
        assert (await client.ask("generate", name, 5, key)).text == answer(name, 5)
        served.append(name)

    chat = {"authorization": f"Bearer {made['chat'][0]}"}
    async with client.stream("generate_stream", "first", ENDLESS, chat) as first:
        await first.next()
        waiting = []
        for count, name in enumerate(("batch", "batch", "chat", "chat"), 1):
            waiting.append(asyncio.create_task(ask(name)))
            async with asyncio.timeout(20):
                while transformer.metric("keepwarm_queue_requests") < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    await asyncio.gather(*waiting)
    assert served == ["chat", "chat", "batch", "batch"]
