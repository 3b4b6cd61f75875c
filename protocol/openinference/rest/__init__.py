"""The REST edge: V2, generate and OpenAI routes over one InferenceService."""

from openinference.rest._errors import exception_handlers
from openinference.rest._routes import routes

__all__ = ["exception_handlers", "routes"]
