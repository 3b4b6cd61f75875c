"""The closed-loop driver and its checks, against the canned HTTP predictor in this process."""

import asyncio
from contextlib import asynccontextmanager

import orjson
import pytest
from canned import ANSWER, pieces
from canned_http import CannedUpstream
from closed_loop import Exchange, drive
from exchanges import (
    chat_exchange,
    chat_stream_exchange,
    infer_exchange,
    pace,
    stream_exchange,
)

MODEL = "model"
CHAT = "/v1/chat/completions"
FAST = pace(1, in_step=False)
STEPS = pace(1, in_step=True)


@asynccontextmanager
async def upstream():
    """The port of a canned predictor."""
    server = await asyncio.get_running_loop().create_server(
        CannedUpstream().connection, "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


async def driven(exchanges, **more):
    """The window of a short drive."""
    async with upstream() as port:
        return await drive(
            port, exchanges, warm_up_s=0.05, seconds=0.2, snapshot=lambda: None, **more
        )


RIGHT = {
    "infer": lambda: infer_exchange(MODEL, 1),
    "infer, distinct": lambda: infer_exchange(MODEL, 1, distinct=True),
    "chat": lambda: chat_exchange(CHAT, MODEL, distinct=True),
    "stream": lambda: stream_exchange(MODEL, tokens=5, prompt=FAST),
    "stream, in step": lambda: stream_exchange(MODEL, tokens=5, prompt=STEPS, distinct=True),
    "chat stream": lambda: chat_stream_exchange(CHAT, MODEL, tokens=5, prompt=STEPS),
}


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
async def test_right_answers_are_counted_and_none_is_wrong(make):
    window = await driven([make() for _ in range(4)])
    assert window.latencies_ms
    assert window.errors == 0


async def test_events_are_counted_and_timed_one_by_one():
    window = await driven([stream_exchange(MODEL, tokens=5, prompt=FAST)])
    assert window.events > len(window.first_ms) > 0
    # A read can hold more than one event.
    assert 0 < len(window.between_ms) <= window.events - len(window.first_ms) + 1


async def test_first_events_within_the_warm_up_count_where_that_is_asked_for():
    one_long = [stream_exchange(MODEL, tokens=400, prompt=FAST)]
    assert len((await driven(one_long, early_firsts=True)).first_ms) == 1
    assert (await driven(one_long)).first_ms == []


WHOLE = orjson.dumps({"id": "connection-1", "outputs": [{"data": [ANSWER]}]})
WRONG = {
    "another text": (infer_exchange(MODEL, 1, text="another"), 200, WHOLE),
    "another id": (infer_exchange(MODEL, 2), 200, WHOLE),
    "a status": (infer_exchange(MODEL, 1), 503, WHOLE),
    "a stream that is too short": (
        stream_exchange(MODEL, tokens=5, prompt=FAST),
        200,
        b"".join(b'data: {"text_output":"%b"}\n\n' % text.encode() for text in pieces(4)),
    ),
    "a chat's stream without its end": (
        chat_stream_exchange(CHAT, MODEL, tokens=1, prompt=FAST),
        200,
        b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % pieces(1)[0].encode(),
    ),
}


@pytest.mark.parametrize(("exchange", "status", "answer"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_seen(exchange, status, answer):
    assert not exchange.is_right(status, answer)


async def test_what_cannot_be_read_is_a_wrong_answer_and_not_the_end():
    request = infer_exchange(MODEL, 1).request

    def is_right(status, answer):
        return orjson.loads(b"<html>")

    window = await driven([Exchange(request, is_right)])
    assert window.errors > 1
    assert window.latencies_ms == []


def test_answers_after_the_first_right_one_must_be_the_same_bytes():
    exchange = infer_exchange(MODEL, 1)
    assert exchange.is_right(200, WHOLE)
    assert exchange.is_right(200, WHOLE)
    assert not exchange.is_right(200, WHOLE.replace(b":", b": "))


def test_comments_within_a_stream_are_no_events():
    told = [b'data: {"text_output":"%b"}\n\n' % text.encode() for text in pieces(2)]
    exchange = stream_exchange(MODEL, tokens=2, prompt=FAST)
    assert exchange.is_right(200, b": still here\n\n".join(told))


def test_distinct_requests_differ_in_nothing_but_the_prompt_and_keep_their_length():
    exchange = infer_exchange(MODEL, 1, distinct=True)
    first, second = exchange.fresh(), exchange.fresh()
    assert first != second
    assert len(first) == len(second) == len(exchange.request)
    bodies = [orjson.loads(each.partition(b"\r\n\r\n")[2]) for each in (first, second)]
    prompts = [body["inputs"][0].pop("data") for body in bodies]
    assert prompts[0] != prompts[1]
    assert bodies[0] == bodies[1]
