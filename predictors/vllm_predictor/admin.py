"""What an operator may ask of the engine: sleep, wake, state. Served on this pod's loopback only.

kubectl exec POD -- python -m vllm_predictor.admin sleep --level 1
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from openinference.server.lifecycle import QuietUvicorn
from vllm_predictor.sleep import Busy, Sleeper

Handler = Callable[[Sleeper, Request], Awaitable[JSONResponse]]

HOST = "127.0.0.1"
PORT = 8082
TIMEOUT_S = 120


def app(sleeper: Callable[[], Sleeper | None]) -> Starlette:
    """POST /sleep?level=1|2, POST /wake, GET /state; 503 while there is no engine yet."""

    def with_engine(handler: Handler) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def answer(request: Request) -> JSONResponse:
            engine = sleeper()
            if engine is None:
                return _error(503, "the engine is starting, or cannot sleep (--sleep_mode)")
            return await handler(engine, request)

        return answer

    return Starlette(
        routes=[
            Route("/sleep", with_engine(_sleep), methods=["POST"]),
            Route("/wake", with_engine(_wake), methods=["POST"]),
            Route("/state", with_engine(_state)),
        ]
    )


async def _sleep(engine: Sleeper, request: Request) -> JSONResponse:
    level = request.query_params.get("level", "1")
    if level not in {"1", "2"}:
        return _error(400, f"level must be 1 or 2, got {level!r:.20}")
    try:
        freed = await engine.sleep(1 if level == "1" else 2, "admin")
    except Busy as busy:
        return _error(409, str(busy))
    return JSONResponse({"level": engine.level or 0, "freed_bytes": freed})


async def _wake(engine: Sleeper, _: Request) -> JSONResponse:
    await engine.wake()
    return JSONResponse({"level": engine.level or 0})


async def _state(engine: Sleeper, _: Request) -> JSONResponse:
    return JSONResponse({"level": engine.level or 0, "idle_s": round(engine.idle_s, 1)})


async def serve(sleeper: Callable[[], Sleeper | None], port: int) -> None:
    """Serves until cancelled."""
    config = uvicorn.Config(
        app(sleeper), host=HOST, port=port, log_config=None, access_log=False, lifespan="off"
    )
    await QuietUvicorn(config).serve()


def main() -> None:
    """The command: asks the predictor of this pod and prints its answer; status 1 for a no."""
    parser = argparse.ArgumentParser(prog="python -m vllm_predictor.admin", description=__doc__)
    parser.add_argument("what", choices=("sleep", "wake", "state"))
    parser.add_argument("--level", type=int, choices=(1, 2), default=1)
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args()
    query = f"?level={given.level}" if given.what == "sleep" else ""
    request = urllib.request.Request(
        f"http://{HOST}:{given.port}/{given.what}{query}",
        method="GET" if given.what == "state" else "POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            sys.stdout.write(answer.read().decode() + "\n")
    except urllib.error.HTTPError as refusal:
        sys.exit(str(json.load(refusal)["error"]))
    except OSError as problem:
        sys.exit(f"no predictor answers at {HOST}:{given.port}: {problem}")


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


if __name__ == "__main__":
    main()
