"""A gRPC client over asyncio: HTTP/2 with what calls of a predictor need, and no more.

gRPC's own Python client costs a thread hand-over and some 100 us of CPU for each message, a token
of a stream too; here a message costs what parsing it does. What the wire looks like is RFC 9113,
RFC 7541 and gRPC's PROTOCOL-HTTP2.md; the library `hpack` reads the header blocks of other servers
than gRPC's own.
"""

from llm_transformer.h2.call import Call
from llm_transformer.h2.channel import Channel
from llm_transformer.h2.status import CallError, Headers

__all__ = ["Call", "CallError", "Channel", "Headers"]
