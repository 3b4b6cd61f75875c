"""Two transformers, one key, 64 connections: what the key is allowed is all it gets.

Real processes in front of perf/'s dummy predictor, which answers every infer at once with 8 tokens
in and 16 out. The refills are so slow that none comes within a test: the burst is the exact bound.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from openinference import key_file
from openinference.api_keys import new_key

if TYPE_CHECKING:
    from tests.integration.faults.servers import Server
    from tests.redis_servers import RedisServer

MODEL = "model"
PERF = Path(__file__).parents[3] / "perf"
CONNECTIONS = 64
DAY_S = 86400
PROMPT = "The capital of France"
BODY = {
    "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [PROMPT]}],
    "parameters": {"max_tokens": 16},
}
# What the dummy predictor counts, and what the transformer reserves: a token a byte, and 4.
USED, RESERVED = 8 + 16, len(PROMPT) + 4 + 16
REQUESTS, TOKENS, CONCURRENT = 100, 2400, 3
PLANS = {
    "requests": {"requests": {"limit": REQUESTS, "per_s": DAY_S, "burst": REQUESTS}},
    "tokens": {"tokens": {"limit": TOKENS, "per_s": DAY_S}},
    "concurrent": {"concurrent": CONCURRENT},
    "open": {
        "requests": {"limit": 10**6, "burst": 10**6},
        "concurrent": 1000,
        "tokens": {"limit": 10**9},
    },
}


@pytest.fixture(scope="module")
def predictor() -> Iterator[int]:
    """The dummy predictor's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, PERF / "dummy_predictor.py"),
            *(f"--model_name={MODEL}", f"--grpc_port={port}"),
        ]
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


class Attack:
    """Two transformers over one Redis; `run` calls both with one key from 64 connections."""

    def __init__(self, servers: "list[Server]", redis: "RedisServer", keys: dict[str, str]) -> None:
        self.servers, self.redis, self.keys = servers, redis, keys

    async def run(self, plan: str, requests: Iterable[object]) -> Counter[int]:
        """Statuses by number, of so many calls with the key of `plan`."""
        statuses: Counter[int] = Counter()
        left = iter(requests)
        headers = {"authorization": f"Bearer {self.keys[plan]}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits, headers=headers) as http:

            async def call(server: "Server") -> None:
                for _ in left:
                    answer = await http.post(f"{server.url}/v2/models/{MODEL}/infer", json=BODY)
                    statuses[answer.status_code] += 1

            await asyncio.gather(
                *(call(self.servers[number % len(self.servers)]) for number in range(CONNECTIONS))
            )
        return statuses

    def metrics(self, name: str) -> list[float]:
        """A metric of both."""
        return [server.metric(name) for server in self.servers]


@pytest.fixture(scope="module")
def attack(
    predictor: int,
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Callable[[int], list[int]],
) -> Iterator[Attack]:
    """The processes, for the module; a key for each plan."""
    from tests import redis_servers
    from tests.integration.faults import servers

    folder = tmp_path_factory.mktemp("attack")
    keys = {plan: new_key(tenant="acme", plan=plan) for plan in PLANS}
    (folder / "keys.yaml").write_text(key_file.dump(kept for _, kept in keys.values()))
    (folder / "plans.yaml").write_text(yaml.safe_dump({"plans": PLANS}))
    with ExitStack() as stack:
        redis = redis_servers.start_single(stack, *free_ports(1), folder / "redis")
        flags = (
            "--allow_anonymous=false",
            f"--keys_file={folder / 'keys.yaml'}",
            f"--plans_file={folder / 'plans.yaml'}",
            f"--redis_url={redis.url}",
            # A machine with other work on it is no ill Redis.
            "--redis_timeout_s=5",
            "--predictor_concurrency=512",
            "--queue_target_s=60",
        )
        both = [
            stack.enter_context(servers.transformer(f"127.0.0.1:{predictor}", *flags))
            for _ in range(2)
        ]
        yield Attack(both, redis, {plan: text for plan, (text, _) in keys.items()})


async def test_a_key_gets_as_many_requests_as_its_limit_and_not_one_more(attack: Attack) -> None:
    statuses = await attack.run("requests", range(3 * REQUESTS))
    assert statuses == {200: REQUESTS, 429: 2 * REQUESTS}
    assert attack.metrics("keepwarm_limit_local") == [0, 0]


async def test_a_key_gets_as_many_tokens_as_its_limit(attack: Attack) -> None:
    statuses = await attack.run("tokens", range(2 * TOKENS // USED))
    charged = sum(attack.metrics("keepwarm_limit_tokens_charged_total"))
    assert charged == statuses[200] * USED
    assert TOKENS - RESERVED < charged <= TOKENS
    assert set(statuses) == {200, 429}


async def test_a_key_has_as_many_generations_at_a_time_as_its_limit(attack: Attack) -> None:
    leases = f"keepwarm:{{acme}}:leases:{attack.keys['concurrent'].split('_')[1]}"
    seen = {0}
    done = asyncio.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(int(attack.redis.client.zcard(leases)))

    watching = asyncio.create_task(asyncio.to_thread(watch))
    statuses = await attack.run("concurrent", range(200))
    done.set()
    await watching
    assert set(statuses) == {200, 429}
    assert max(seen) == CONCURRENT


async def test_killing_redis_under_load_fails_no_request_and_both_come_back(attack: Attack) -> None:
    going = True

    async def until(condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 60
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < end, f"not in time: {what}"

    load = asyncio.create_task(attack.run("open", iter(lambda: going, False)))
    try:
        for _ in range(2):
            attack.redis.kill()
            await until(
                lambda: attack.metrics("keepwarm_limit_local") == [1, 1], "both keep to their share"
            )
            attack.redis.start()
            await until(
                lambda: (
                    attack.metrics("keepwarm_redis_up") == [1, 1]
                    and attack.metrics("keepwarm_limit_local") == [0, 0]
                ),
                "both share again",
            )
    finally:
        going = False
    statuses = await load
    assert set(statuses) == {200}
    assert min(attack.metrics("keepwarm_redis_recoveries_total")) >= 2
    await until(
        lambda: attack.metrics("keepwarm_limit_owed_settlements") == [0, 0], "nothing is owed"
    )
