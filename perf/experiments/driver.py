"""Sends the requests of an experiment, open loop, and says what each met.

`generate` and `generate_stream` to our servers, completions to vLLM's own; always greedy and
exactly as many tokens as asked, so that every stack is asked for the same work.
"""

import asyncio
import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import open_loop
import protocols
from figures import Outcome, Usage
from mix import Request
from open_loop import Callers, Reply
from stacks import MODEL, Served

WARMERS = 16
# By whether our servers answer and whether the answer is streamed.
PROTOCOLS = {
    (True, True): protocols.PROTOCOLS["generate_stream"],
    (True, False): protocols.PROTOCOLS["generate"],
    (False, True): protocols.PROTOCOLS["completions"],
    (False, False): protocols.PROTOCOLS["completions-whole"],
}


@dataclass(frozen=True)
class Watched:
    """Seconds after the start between which something is watched; `end` tells what was used."""

    begin_s: float
    end_s: float
    begin: Callable[[], None]
    end: Callable[[], Usage]


def encode(request: Request, *, v2: bool, model: str = MODEL) -> tuple[str, bytes]:
    """Path and body."""
    protocol = PROTOCOLS[v2, request.stream]
    return protocols.encoded(protocol, protocols.Ask(model), request.planned)


def outcome(reply: Reply, request: Request) -> Outcome:
    """What a reply means for whoever asked."""
    due_s = request.planned.due_s
    return Outcome(
        due_s,
        due_s + reply.total_s,
        reply.status,
        reply.status == 200 and reply.ended and _came_to_its_end(reply.events),
        request.planned.output_tokens,
        reply.first_s if request.stream else None,
        reply.late_s,
        reply.headers.get("x-cache", ""),
    )


def _came_to_its_end(events: Sequence[dict[str, object]]) -> bool:
    """Whether there was an answer, and no error in or after it."""
    return bool(events) and not any("error" in event for event in events)


async def drive(
    callers: Sequence[Callers],
    requests: Iterable[Request],
    *,
    v2: bool,
    patience_s: float,
    watched: Watched,
    model: str = MODEL,
) -> tuple[list[Outcome], Usage]:
    """Sends each request when it is due, by the callers in turn; returns when all have ended."""
    loop = asyncio.get_running_loop()
    planned = list(requests)
    wire = [encode(request, v2=v2, model=model) for request in planned]
    gc.collect()
    gc.freeze()
    outcomes: list[Outcome] = []
    used: asyncio.Future[Usage] = loop.create_future()

    async def send(number: int, due: float) -> None:
        caller = callers[number % len(callers)]
        reply = await caller.post(*wire[number], due=due, patience_s=patience_s)
        outcomes.append(outcome(reply, planned[number]))

    began = loop.time()
    loop.call_at(began + watched.begin_s, watched.begin)
    loop.call_at(began + watched.end_s, lambda: used.set_result(watched.end()))
    await open_loop.drive((request.planned.due_s for request in planned), send)
    return outcomes, await used


def calling(stack: ExitStack, served: Served) -> list[Callers]:
    """Callers of every port; `stack` closes their connections."""
    has_text = PROTOCOLS[served.v2, True].has_text
    return [
        stack.enter_context(closing(Callers(f"http://127.0.0.1:{port}", has_text=has_text)))
        for port in served.ports
    ]


async def warm(callers: Sequence[Callers], requests: Sequence[Request], *, v2: bool) -> None:
    """Asks everything once at every caller's server; raises RuntimeError if one is refused."""
    waiting = asyncio.Semaphore(WARMERS)

    async def send(caller: Callers, request: Request) -> None:
        path, body = encode(request, v2=v2)
        async with waiting:
            reply = await caller.post(path, body)
        if reply.status != 200:
            raise RuntimeError(f"the cache cannot be filled: {reply.status} {reply.events}")

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            for request in requests:
                group.create_task(send(caller, request))
