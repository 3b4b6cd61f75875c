"""The floor: uvicorn and orjson answering the same JSON, with no protocol and no predictor.

On `generate_stream` it tells ready-made events, at the pace that the prompt asks for (`canned.py`).
"""

import argparse
import asyncio
from typing import Any

import orjson
import uvicorn
from canned import ANSWER, Paced, Steps, pace_of, piece

HEADERS = [(b"content-type", b"application/json")]
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
EVENTS = [
    b"data: %b\n\n" % orjson.dumps({"model_name": "model", "text_output": piece(number)})
    for number in (0, 1)
]
steps = Steps()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body, checks nothing, answers a V2 infer's id with the fixed text."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    request = orjson.loads(b"".join(parts))
    if scope["path"].endswith("/generate_stream"):
        await stream(request, send)
        return
    body = orjson.dumps(
        {
            "model_name": "model",
            "id": request["id"],
            "outputs": [
                {"name": "text_output", "shape": [1], "datatype": "BYTES", "data": [ANSWER]}
            ],
        }
    )
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": body})


async def stream(request: dict[str, Any], send: Any) -> None:
    """Tells as many events as tokens are asked for."""
    tokens, pace = request["parameters"]["max_tokens"], pace_of(request["text_input"].encode())
    assert pace is not None
    pause_s, in_step = pace
    due: asyncio.Queue[int] = asyncio.Queue()
    paced = Paced(due.put_nowait, tokens, pause_s)
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    if in_step:
        steps.join(paced, pause_s)
    else:
        paced.begin()
    try:
        for _ in range(tokens):
            event = EVENTS[await due.get() % 2]
            await send({"type": "http.response.body", "body": event, "more_body": True})
    finally:
        paced.ended = True
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, required=True)
    port = parser.parse_args().http_port
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
