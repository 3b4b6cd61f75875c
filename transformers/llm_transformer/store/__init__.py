"""The Redis that transformers share: made from one URL, never waited for when it is ill."""

from llm_transformer.store.address import RedisAddress, UnusableAddressError
from llm_transformer.store.connect import connect
from llm_transformer.store.guard import (
    Client,
    Store,
    StoreSkippedError,
    StoreUnavailableError,
)
from llm_transformer.store.script import Script

__all__ = [
    "Client",
    "RedisAddress",
    "Script",
    "Store",
    "StoreSkippedError",
    "StoreUnavailableError",
    "UnusableAddressError",
    "connect",
]
