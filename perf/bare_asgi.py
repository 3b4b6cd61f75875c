"""The floor: uvicorn and orjson answering the same JSON, with no protocol and no predictor."""

import argparse
from typing import Any

import orjson
import uvicorn
from canned import ANSWER

HEADERS = [(b"content-type", b"application/json")]


async def app(_: Any, receive: Any, send: Any) -> None:
    """Reads a V2 infer body, checks nothing, answers its id with the fixed text."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    request = orjson.loads(b"".join(parts))
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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, required=True)
    port = parser.parse_args().http_port
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
