"""Puts the routes of a service on a Starlette app (KServe's own), in place of all others."""

import orjson
from prometheus_client import REGISTRY, exposition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from openinference import openapi, rest
from openinference.server.direct import Direct
from openinference.service import InferenceService


def build(
    app: Starlette, service: InferenceService, *, max_body_bytes: int, openai: bool
) -> ASGIApp:
    """Gives `app` our routes, `/metrics`, `/openapi.json` and `/`, and our error bodies.

    What is returned is to be served: `app` with a short way to our endpoints.

    KServe's own routes are not kept: they check little, and its repository routes let anybody
    unload the model.
    """

    async def root(_: Request) -> Response:
        return Response('{"status":"alive"}', media_type="application/json")

    async def description(_: Request) -> Response:
        return Response(described, media_type="application/json")

    routes = [
        *rest.routes(service, max_body_bytes=max_body_bytes, openai=openai),
        Route("/metrics", _metrics, name="metrics"),
        Route("/openapi.json", description, name="openapi"),
        Route("/", root, name="root"),
    ]
    described = orjson.dumps(openapi.document(service.metadata, routes))
    app.router.routes[:] = routes
    app.router.redirect_slashes = False
    for kind, handler in rest.exception_handlers().items():
        app.add_exception_handler(kind, handler)
    return Direct(app, routes)


async def _metrics(request: Request) -> Response:
    encoder, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(REGISTRY), headers={"content-type": content_type})
