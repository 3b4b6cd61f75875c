"""Two transformers, one Redis, one predictor: one generation for all, whoever dies meanwhile."""

import asyncio
import json
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from fixed_predictor import answer

from .requests import Client
from .servers import MODEL, Server

# What is asked for here is sampled; these callers do not mind whose sample they get.
KEPT = {"cache-control": "sampled"}
TOKENS = 20
LEASE_S = 3.0
OPEN_FILES = 4096
PATIENT = ("--redis_timeout_s=5",)

StartPredictor = Callable[..., Server]
ClientOf = Callable[[Server], Client]
Eventually = Callable[..., None]


@pytest.fixture
def start_replica(start_transformer, fresh_redis):
    """Starts a transformer that shares one Redis with the others."""
    redis = fresh_redis()

    def start(predictor: Server, *flags: str) -> Server:
        # A machine that is busy with tests is slow; Redis that fails is another test's.
        flags = (f"--redis_url={redis.url}", f"--cache_lease_s={LEASE_S}", *PATIENT, *flags)
        return start_transformer(predictor.target, *flags)

    start.redis = redis
    return start


class Engine:
    """What the predictor's engine has done since now."""

    def __init__(self, predictor: Server) -> None:
        self._predictor = predictor
        self._before = self._counts()

    def _counts(self) -> Counter[str]:
        return Counter(
            {
                end: int(self._predictor.metric(f'fixed_engine_sequences_total{{end="{end}"}}'))
                for end in ("finished", "aborted")
            }
        )

    @property
    def sequences(self) -> Counter[str]:
        return self._counts() - self._before


async def _until(condition, what):
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (other processes)
            await asyncio.sleep(0.02)


async def _read(reader: asyncio.StreamReader) -> tuple[str, str]:
    """X-Cache and the text of an answer, which must be a 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    assert head.startswith("HTTP/1.1 200 "), (head, body)
    return headers["x-cache"], body["text_output"]


async def test_a_thousand_at_once_at_two_replicas_reach_the_engine_once(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf
):
    # A thousand connections, of whose ends the transformers have half each.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    predictor = start_predictor("--prefill_ms=3000")
    replicas = [start_replica(predictor) for _ in range(2)]
    await client_of(replicas[0]).ask("generate", "wake up", 1)
    engine = Engine(predictor)
    body = json.dumps({"text_input": "everybody's question", "parameters": {"max_tokens": TOKENS}})
    request = (
        f"POST /v2/models/{MODEL}/generate HTTP/1.1\r\nhost: x\r\ncache-control: sampled\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    # Connected before, so that they come at once.
    connections = [
        await asyncio.open_connection("127.0.0.1", replicas[number % 2].http)
        for number in range(1000)
    ]
    for _, writer in connections:
        writer.write(request)
    async with asyncio.timeout(120):
        answers = await asyncio.gather(*(_read(reader) for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    assert {text for _, text in answers} == {answer("everybody's question", TOKENS)}
    assert engine.sequences == {"finished": 1}
    told = Counter(told for told, _ in answers)
    assert told["miss"] == 1
    assert told["coalesced"] > 100


async def test_without_the_cache_they_would_all_reach_it(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf
):
    predictor = start_predictor("--prefill_ms=10", "--token_ms=1", "--slots=64")
    client = client_of(start_replica(predictor))
    engine = Engine(predictor)
    uncached = {"cache-control": "no-store"}
    await asyncio.gather(*(client.ask("generate", "a question", 1, uncached) for _ in range(50)))
    assert engine.sequences == {"finished": 50}


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_leader_that_dies_or_freezes_hands_over_to_who_waits(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf, blow
):
    predictor = start_predictor("--token_ms=100")
    leader, follower = start_replica(predictor), start_replica(predictor)
    await client_of(follower).ask("generate", "wake up", 1)
    engine = Engine(predictor)

    async def lead():
        async with client_of(leader).stream("generate_stream", "long", 40, KEPT) as stream:
            return await stream.rest()

    leading = asyncio.create_task(lead())
    await _until(lambda: start_replica.redis.client.keys("*:lease"), "the leader has the lease")
    waiting = asyncio.create_task(client_of(follower).ask("generate_stream", "long", 40, KEPT))
    # It stands at the end of who has asked Redis for the lease.
    await _until(
        lambda: follower.metric('keepwarm_requests_in_flight{endpoint="generate_stream"}') == 1,
        "the follower waits",
    )
    os.kill(leader.process.pid, blow)
    told = await waiting
    assert (told.status, told.text, told.error) == (200, answer("long", 40), None)
    assert follower.metric("keepwarm_cache_handovers_total") == 1
    if blow is signal.SIGSTOP:
        # It comes back, ends what it had begun, and does not put it over what is there by now.
        os.kill(leader.process.pid, signal.SIGCONT)
        assert (await leading).text == answer("long", 40)
        assert engine.sequences == {"finished": 2}
    else:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await _until(lambda: engine.sequences == {"finished": 1, "aborted": 1}, "the engine stops")
    again = await client_of(follower).ask("generate_stream", "long", 40, KEPT)
    assert (again.headers["x-cache"], again.text) == ("hit", answer("long", 40))


async def test_a_sole_client_that_leaves_ends_the_work_and_one_of_two_does_not(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf
):
    predictor = start_predictor("--token_ms=50")
    client = client_of(start_replica(predictor))
    await client.ask("generate", "wake up", 1)
    engine = Engine(predictor)
    async with client.stream("generate_stream", "long", 200, KEPT) as stream:
        await stream.next()
    await _until(lambda: engine.sequences == {"aborted": 1}, "the engine stops")
    async with client.stream("generate_stream", "long", 40, KEPT) as first:
        await first.next()
        async with client.stream("generate_stream", "long", 40, KEPT) as second:
            await second.next()
            await first._lines.aclose()
            told = await second.rest()
    assert told.text == answer("long", 40)
    assert told.headers["x-cache"] == "coalesced"
    assert engine.sequences == {"aborted": 1, "finished": 1}


@pytest.mark.parametrize("blow", ["kill", "freeze"])
async def test_redis_that_fails_under_load_fails_no_request(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf, blow
):
    predictor = start_predictor("--prefill_ms=1", "--token_ms=1", "--slots=64")
    clients = [client_of(start_replica(predictor, "--redis_timeout_s=0.05")) for _ in range(2)]
    answers: Counter[str] = Counter()
    wrong = []
    ended = asyncio.Event()

    async def caller(number):
        turn = 0
        while not ended.is_set():
            turn += 1
            prompt = f"question {turn % 50}" if number % 2 else f"question {number}/{turn}"
            told = await clients[number % 4 // 2].ask("generate", prompt, 3, KEPT)
            answers[told.headers.get("x-cache", "none")] += 1
            if (told.status, told.text) != (200, answer(prompt, 3)):
                wrong.append(told)

    async with asyncio.TaskGroup() as group:
        for number in range(32):
            group.create_task(caller(number))
        await _until(lambda: answers.total() > 300, "it runs")
        getattr(start_replica.redis, blow)()
        at = answers.total()
        await _until(lambda: answers.total() > at + 600, "it goes on")
        if blow == "kill":
            start_replica.redis.start()
        else:
            start_replica.redis.thaw()
        at = answers.total()
        await _until(lambda: answers.total() > at + 300, "and on")
        ended.set()
    assert wrong == []
    assert answers["hit"] > 0
    assert answers["miss"] > 0


async def test_the_first_answer_of_other_weights_ends_what_was_kept_of_the_old_in_all_replicas(
    start_predictor: StartPredictor, start_replica, client_of: ClientOf
):
    old = start_predictor("--weights=old")
    first, second = (client_of(start_replica(old)) for _ in range(2))

    async def told(client: Client, prompt: str = "a question") -> tuple[str, str]:
        headers = (await client.ask("generate", prompt, TOKENS, KEPT)).headers
        return headers["x-cache"], headers["etag"]

    made = await told(first)
    kept = ("hit", made[1])
    assert (made[0], await told(second), await told(first)) == ("miss", kept, kept)
    old.kill()
    assert await told(first) == kept
    start_predictor("--weights=new", grpc=old.grpc)
    assert (await told(first, "another question"))[0] == "miss"
    assert (await told(first))[0] == "miss"
    async with asyncio.timeout(30):
        while await told(second) == kept:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.1)
