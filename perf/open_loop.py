"""An open-loop HTTP/1.1 driver: requests leave when they are due, whoever has been answered.

Each has a connection of its own. What comes back is kept whole, so that whoever drives can say
whether it is right; a request that is neither answered nor cut within its patience is a hung one.
"""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(slots=True)
class Reply:
    """What a caller got.

    `status` is 0 when nothing came; `ended` is whether the answer was whole by HTTP's own rules,
    `hung` whether the caller's patience ended it. `first_s` and `total_s` are seconds from when the
    request was due to the first event and to the end.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    first_s: float | None = None
    total_s: float = 0.0
    ended: bool = False
    hung: bool = False


async def ask(
    port: int,
    path: str,
    body: Any,
    *,
    headers: dict[str, str] | None = None,
    patience_s: float = 60.0,
    due: float | None = None,
) -> Reply:
    """One POST of JSON to a loopback port; raises nothing that a server can cause."""
    loop = asyncio.get_running_loop()
    due = loop.time() if due is None else due
    reply = Reply()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(path, body, headers or {}))
            await _read(reader, reply, due, loop)
    except TimeoutError:
        reply.hung = True
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        reply.total_s = loop.time() - due
        if writer is not None:
            writer.transport.abort()
    return reply


def _request(path: str, body: Any, headers: dict[str, str]) -> bytes:
    content = orjson.dumps(body)
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(content)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _read(
    reader: asyncio.StreamReader, reply: Reply, due: float, loop: asyncio.AbstractEventLoop
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    reply.status = int(head[0].split(" ", 2)[1])
    for line in head[1:]:
        name, _, value = line.partition(":")
        reply.headers[name.lower()] = value.strip()
    if "content-length" in reply.headers:
        content = await reader.readexactly(int(reply.headers["content-length"]))
        reply.first_s = loop.time() - due
        reply.events.append(orjson.loads(content))
        reply.ended = True
        return
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: {"):
                if reply.first_s is None:
                    reply.first_s = loop.time() - due
                reply.events.append(json.loads(event[6:]))
    reply.ended = True


def arrivals(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process, in seconds from its start."""
    rng = random.Random(seed)  # noqa: S311 (a workload, not a secret)
    at = rng.expovariate(rate_per_s)
    while at < seconds:
        yield at
        at += rng.expovariate(rate_per_s)


async def drive(
    times: Iterable[float], send: Callable[[int, float], Coroutine[Any, Any, None]]
) -> None:
    """Calls `send` with a number and the loop's time at which it is due; ends when all have."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(times):
            await asyncio.sleep(began + at - loop.time())
            group.create_task(send(number, began + at))
