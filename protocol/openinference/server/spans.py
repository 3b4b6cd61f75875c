"""The tracer that a server's settings ask for; without an endpoint nothing of it is imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openinference.server.settings import ServerSettings
from openinference.service import InferenceService

if TYPE_CHECKING:
    from openinference.tracing import Tracer


@contextmanager
def tracer(settings: ServerSettings, server: str) -> Iterator["Tracer | None"]:
    """Its last spans are exported at the end."""
    if settings.otlp_endpoint is None:
        yield None
        return
    from openinference import tracing

    made = tracing.exporting(server, settings.otlp_endpoint, settings.otlp_sample_ratio)
    try:
        yield made
    finally:
        made.close()


def served(service: InferenceService, tracer_: "Tracer | None", stage: str) -> InferenceService:
    """What the edges call: `service`, whose generations are spans where there is a tracer."""
    if tracer_ is None:
        return service
    from openinference.tracing import TracedService

    return TracedService(service, tracer_, stage)
