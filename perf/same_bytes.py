"""The floor of a cache hit: uvicorn and an app that reads the request and answers fixed bytes."""

import argparse
from pathlib import Path
from typing import Any

import uvicorn


def app_of(body: bytes) -> Any:
    """An ASGI app whose every answer is `body`, JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, required=True)
    parser.add_argument("--body", type=Path, required=True, help="file that holds the answer")
    arguments = parser.parse_args()
    uvicorn.run(
        app_of(arguments.body.read_bytes()),
        host="127.0.0.1",
        port=arguments.http_port,
        log_config=None,
        access_log=False,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
