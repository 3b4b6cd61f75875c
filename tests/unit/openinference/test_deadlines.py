import asyncio
import contextlib

import pytest

from openinference.context import RequestContext
from openinference.deadlines import collect_until_deadline, until_deadline, while_connected
from openinference.errors import DeadlineExceeded, InternalError, NotFound
from openinference.generation import Chunk, Completion, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

CHUNK = Chunk(0, "a", 1, 1)
REQUEST = GenerationRequest("m", ("Hi",), SamplingParams(), stream=False)


class Source:
    """Chunks that are followed by `end`: an error to raise or an event to await."""

    def __init__(self, end=None):
        self.end = end
        self.closed = False

    async def chunks(self):
        try:
            yield CHUNK
            yield CHUNK
            if isinstance(self.end, Exception):
                raise self.end
            if self.end is not None:
                await self.end.wait()
        finally:
            self.closed = True


def _in(seconds):
    return RequestContext("a", asyncio.get_running_loop().time() + seconds)


async def test_all_chunks_pass_before_the_deadline():
    source = Source()
    for context in (_in(60), RequestContext("a")):
        assert [c async for c in until_deadline(source.chunks(), context)] == [CHUNK, CHUNK]


async def test_at_the_deadline_the_source_is_closed():
    source = Source(asyncio.Event())
    chunks = until_deadline(source.chunks(), _in(0.02))
    assert [await anext(chunks), await anext(chunks)] == [CHUNK, CHUNK]
    with pytest.raises(DeadlineExceeded):
        await anext(chunks)
    assert source.closed


async def test_an_error_of_the_source_passes():
    source = Source(NotFound("no such model"))
    with pytest.raises(NotFound):
        [c async for c in until_deadline(source.chunks(), _in(60))]
    assert source.closed


async def test_closing_early_closes_the_source():
    source = Source()
    chunks = until_deadline(source.chunks(), _in(60))
    await anext(chunks)
    await chunks.aclose()
    assert source.closed


async def test_a_whole_answer_is_collected_before_the_deadline():
    async def chunks():
        yield CHUNK
        yield Chunk(0, "b", 1, 2, FinishReason.EOS)

    for context in (_in(60), RequestContext("a")):
        assert await collect_until_deadline(REQUEST, chunks(), context) == [
            Completion("ab", FinishReason.EOS, 1, 2)
        ]


@pytest.mark.parametrize(
    ("end", "seconds", "kind"),
    [
        (asyncio.Event(), 0.02, DeadlineExceeded),
        (asyncio.Event(), -1, DeadlineExceeded),
        (NotFound("no such model"), 60, NotFound),
        (None, 60, InternalError),
    ],
)
async def test_an_answer_that_does_not_become_whole_closes_its_source(end, seconds, kind):
    source = Source(end)
    with pytest.raises(kind):
        await collect_until_deadline(REQUEST, source.chunks(), _in(seconds))
    assert source.closed


class Caller:
    """ASGI's receive of a caller who leaves when `left` is set."""

    def __init__(self):
        self.left = asyncio.Event()

    async def __call__(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_work_runs_to_its_end_while_the_caller_stays():
    done = []

    async def work():
        await asyncio.sleep(0)
        done.append(True)

    await while_connected(Caller(), work())
    assert done


async def test_an_error_of_the_work_passes():
    async def work():
        raise NotFound("x")

    with pytest.raises(NotFound):
        await while_connected(Caller(), work())


async def test_work_is_cancelled_and_awaited_when_the_caller_leaves():
    caller, cleaned = Caller(), []

    async def work():
        caller.left.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    await while_connected(caller, work())
    assert cleaned


async def test_work_is_cancelled_and_awaited_when_the_server_cancels():
    began, cleaned = asyncio.Event(), []

    async def work():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = asyncio.create_task(while_connected(Caller(), work()))
    await began.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert cleaned
