"""The open-loop driver against a server that plays a script: every end is told for what it is."""

import asyncio
import time
from array import array
from contextlib import asynccontextmanager

import pytest
from load import Ask, outcome, run
from open_loop import Callers, ask, drive
from protocols import PROTOCOLS
from schedule import Planned, Shape, plan

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
JSON, SSE = HEAD % b"application/json", HEAD % b"text/event-stream"
CHUNKED = SSE + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str) -> bytes:
    return chunk(b'data: {"text_output": "%s"}\n\n' % text.encode())


WHOLE = JSON + b'content-length: 11\r\n\r\n{"a": true}'
STREAM = [CHUNKED, chunk(b": waiting\n\n"), event(""), event("a"), event("b"), b"0\r\n\r\n"]


@asynccontextmanager
async def playing(*scripts):
    """A server whose n-th request on any connection is answered by the n-th script, then the last.

    A script is a list of writes, None a wait for ever, and closes when it ends with "close".
    """
    told = {"requests": 0, "connections": 0}

    async def answer(reader, writer):
        told["connections"] += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                script = scripts[min(told["requests"], len(scripts) - 1)]
                told["requests"] += 1
                for part in script:
                    if part is None:
                        await asyncio.Event().wait()
                    if part == "close":
                        return
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], told
    finally:
        server.close()


def has_text(found):
    return bool(found.get("text_output"))


async def test_whole_answers_share_a_connection():
    async with playing([WHOLE]) as (port, told):
        callers = Callers(f"http://127.0.0.1:{port}")
        replies = [await callers.post("/x", b"{}") for _ in range(3)]
        callers.close()
    assert [(each.status, each.ended, each.events) for each in replies] == [
        (200, True, [{"a": True}])
    ] * 3
    assert told == {"requests": 3, "connections": 1}


async def test_a_stream_has_begun_with_its_first_text():
    gaps = array("d")
    async with playing(STREAM) as (port, _):
        callers = Callers(f"http://127.0.0.1:{port}", has_text=has_text, gaps=gaps)
        reply = await callers.post("/x", b"{}")
        callers.close()
    assert (reply.status, reply.ended, reply.pieces) == (200, True, 3)
    assert reply.first_s is not None
    assert reply.first_s <= reply.total_s
    assert len(gaps) <= 1


async def test_who_keeps_the_events_gets_all_of_them():
    async with playing(STREAM) as (port, _):
        reply = await ask(port, "/x", {})
    assert [each["text_output"] for each in reply.events] == ["", "a", "b"]


async def test_latency_counts_from_when_a_request_was_due():
    async with playing([WHOLE]) as (port, _):
        reply = await ask(port, "/x", {}, due=time.monotonic() - 5)
    assert reply.total_s >= reply.first_s >= reply.late_s >= 5


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with playing([JSON + b"\r\n", b'{"a": 1}', "close"]) as (port, _):
        reply = await ask(port, "/x", {})
    assert (reply.ended, reply.events, reply.failure) == (True, [{"a": 1}], "")


@pytest.mark.parametrize(
    ("script", "status", "failure", "hung"),
    [
        (["close"], 0, "reset", False),
        ([CHUNKED, event("a"), "close"], 200, "cut", False),
        ([JSON + b"content-length: 99\r\n\r\n{", "close"], 200, "cut", False),
        ([b"nonsense\r\n\r\n", None], 0, "reset", False),
        ([None], 0, "", True),
        ([CHUNKED, event("a"), None], 200, "", True),
    ],
)
async def test_what_does_not_end_is_told_for_what_it_is(script, status, failure, hung):
    async with playing(script) as (port, _):
        callers = Callers(f"http://127.0.0.1:{port}")
        reply = await callers.post("/x", b"{}", patience_s=0.3 if hung else 30)
        callers.close()
    assert (reply.status, reply.failure, reply.hung) == (status, failure, hung)
    assert not reply.ended


async def test_nobody_listening_is_a_refusal():
    async with playing([WHOLE]) as (port, _):
        pass
    assert (await ask(port, "/x", {})).failure == "refused"


async def test_an_idle_connection_that_the_server_has_closed_costs_no_request():
    async with playing([WHOLE, "close"], [WHOLE]) as (port, told):
        callers = Callers(f"http://127.0.0.1:{port}")
        replies = [await callers.post("/x", b"{}") for _ in range(3)]
        callers.close()
    assert [(each.status, each.failure) for each in replies] == [(200, "")] * 3
    assert told["connections"] == 2


async def test_requests_leave_when_due_whoever_has_been_answered():
    async with playing([None]) as (port, told):
        callers = Callers(f"http://127.0.0.1:{port}")
        replies = []

        async def send(number, due):
            replies.append(await callers.post("/x", b"{}", due=due, patience_s=0.5))

        await drive([0.0, 0.01, 0.02, 0.03], send)
    assert told["requests"] == 4
    assert callers.most_in_flight == 4
    assert [each.hung for each in replies] == [True] * 4


ENDS = {
    "ok": STREAM,
    "503": [b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}"],
    "error": [CHUNKED, event("a"), chunk(b'data: {"error": "broken"}\n\n'), b"0\r\n\r\n"],
    "empty": [CHUNKED, event(""), b"0\r\n\r\n"],
    "cut": [CHUNKED, event("a"), "close"],
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_outcome_says_how_an_answer_ended(end):
    (planned,) = plan([0.0], [Shape(1, 5, 7)], seed=0, name="run")
    async with playing(ENDS[end]) as (port, _):
        done = await run(
            f"http://127.0.0.1:{port}", PROTOCOLS["generate_stream"], Ask("model"), [planned]
        )
    assert [each.end for each in done.outcomes] == [end]
    assert done.outcomes[0].output_tokens == 7


async def test_tokens_are_those_that_the_server_counted():
    used = [
        CHUNKED,
        chunk(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'),
        chunk(b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'),
        b"0\r\n\r\n",
    ]
    async with playing(used) as (port, _):
        reply = await ask(port, "/x", {})
    assert outcome(Planned(0.0, "a", 5, 7), reply, streams=True).output_tokens == 3
