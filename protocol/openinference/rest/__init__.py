"""The REST edge: V2, generate and OpenAI routes over one InferenceService."""

from openinference.rest._endpoint import Endpoint
from openinference.rest._errors import exception_handlers
from openinference.rest._routes import routes

__all__ = ["Endpoint", "exception_handlers", "routes"]
