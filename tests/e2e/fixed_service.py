"""An HTTP server that answers every GET after SERVICE_S seconds, any number at a time.

The answer is the Unix time at which the request came. The source is a container's `python -c`:
nothing but the standard library, ready in a moment.
"""

import asyncio
import contextlib
import os
import signal
import time

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            came = str(time.time())
            await asyncio.sleep(float(os.environ["SERVICE_S"]))
            writer.write((HEAD.format(len(came)) + came).encode())
            await writer.drain()
    writer.close()


async def _serve() -> None:
    stop = asyncio.Event()
    # Without a handler the first process of a container does not hear it.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with await asyncio.start_server(_answer, "0.0.0.0", int(os.environ["PORT"])):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
