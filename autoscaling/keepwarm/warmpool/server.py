"""The controller's HTTP side: health, metrics, and wakes for what cannot run kubectl.

A wake is asked for with a Kubernetes token made for the audience, by whoever may create
`warmpools/wake` on the WarmPool: no other secret, and RBAC decides. Every replica answers.
"""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

import httpx2
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from keepwarm.warmpool import metrics, wake
from keepwarm.warmpool.cluster import ApiError, Cluster
from keepwarm.warmpool.observed import Key

log = logging.getLogger(__name__)
MOST_BYTES = 1024


class WakeRequest(BaseModel):
    """The body of a wake."""

    model_config = ConfigDict(extra="forbid")
    replicas: int = Field(ge=0, le=1000)
    until: Annotated[str, Field(max_length=40)] = Field(alias="for")


class Refused(Exception):
    """A status and a sentence."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def application(cluster: Cluster, ready: Callable[[], bool], audience: str) -> Starlette:
    """The routes; without an `audience` no wake is served."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not all kinds are listed yet\n", status_code=503)

    async def scrape(_request: Request) -> Response:
        return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def ask(request: Request) -> Response:
        key = Key(request.path_params["namespace"], request.path_params["name"])
        try:
            told = await _wake(cluster, request, audience, key)
            status = HTTPStatus.ACCEPTED
        except Refused as refusal:
            told, status = {"error": str(refusal)}, refusal.status
        except (ApiError, httpx2.HTTPError) as error:
            log.warning("wake of %s: %s", key, error)
            told, status = (
                {"error": "the API server refuses or is out of reach"},
                HTTPStatus.BAD_GATEWAY,
            )
        metrics.WAKES.labels(str(int(status))).inc()
        return JSONResponse(told, status_code=status)

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", scrape),
    ]
    if audience:
        path = "/v1alpha1/namespaces/{namespace}/warmpools/{name}/wake"
        routes.append(Route(path, ask, methods=["POST"]))
    return Starlette(routes=routes)


async def _wake(cluster: Cluster, request: Request, audience: str, key: Key) -> dict[str, str]:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(HTTPStatus.UNAUTHORIZED, f"a bearer token for audience {audience} is needed")
    user = await cluster.may_wake(token.strip(), audience, key)
    if user is None:
        # The same for a bad token, a missing right and a missing object: nothing can be guessed.
        raise Refused(HTTPStatus.FORBIDDEN, f"this token may not create warmpools/wake on {key}")
    asked = await _body(request)
    text = f"{asked.replicas}/{asked.until}"
    try:
        wake.parse(text)
    except wake.InvalidWake as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    try:
        await cluster.wake(key, text)
    except ApiError as error:
        if error.status.code != HTTPStatus.NOT_FOUND:
            raise
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no WarmPool {key}") from None
    log.info("%s: wake %s asked for by %s", key, text, user)
    return {"wake": text}


async def _body(request: Request) -> WakeRequest:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes")
    try:
        return WakeRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        said = f'{where}: {first["msg"]}; write {{"replicas": 2, "for": "30m"}}'
        raise Refused(HTTPStatus.BAD_REQUEST, said) from None
