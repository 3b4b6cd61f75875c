"""The OpenAPI document of the REST routes, made from the routes and from the parameters' table."""

from openinference.openapi._document import document

__all__ = ["document"]
