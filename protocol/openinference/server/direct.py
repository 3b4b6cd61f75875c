"""Requests go to their endpoint at once; what is no endpoint's goes through the whole app.

Starlette compares a path with one route after another and wraps each request in four layers for
errors and exits, which for our endpoints, that answer every error themselves, have nothing to do.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from openinference.rest import Endpoint

# Of paths that matched: model names and versions are a caller's to choose.
_REMEMBERED: Final = 1024
_LONGEST: Final = 256


class Direct:
    """An ASGI app in front of another one."""

    def __init__(self, app: ASGIApp, routes: Sequence[Any]) -> None:
        """`routes` are those of `app`; of them the ones that lead to an Endpoint are shortened."""
        self._app = app
        self._routes = [
            route
            for route in routes
            if isinstance(route, Route) and isinstance(route.app, Endpoint)
        ]
        self._known: dict[tuple[str, str], tuple[Endpoint, Mapping[str, str]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope["method"], scope["path"]
        known = self._known.get(asked)
        if known is None:
            known = self._find(scope)
            if known is None:
                await self._app(scope, receive, send)
                return
            self._remember(asked, known)
        endpoint, scope["path_params"] = known
        await endpoint(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Endpoint, Mapping[str, str]] | None:
        for route in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                return route.app, more["path_params"]  # type: ignore[return-value]  # an Endpoint
        return None

    def _remember(self, asked: tuple[str, str], found: tuple[Endpoint, Mapping[str, str]]) -> None:
        if len(asked[1]) > _LONGEST:
            return
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[asked] = found
