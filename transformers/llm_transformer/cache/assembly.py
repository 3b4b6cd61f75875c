"""The cache stage, put together from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_transformer.cache.local import LocalCache
from llm_transformer.cache.policy import CachePolicy
from llm_transformer.cache.redis_cache import ASK_S, RedisCache
from llm_transformer.cache.shared import NoSharedCache, SharedCache
from llm_transformer.cache.shelf import Shelf
from llm_transformer.cache.stage import CachedForward, Predictor
from llm_transformer.cache.weights import Weights
from llm_transformer.forward import Forward
from llm_transformer.models import ModelTable
from llm_transformer.settings import TransformerSettings
from llm_transformer.store import Store


@asynccontextmanager
async def cached_forward(
    settings: TransformerSettings, table: ModelTable, forward: Predictor, store: Store | None
) -> AsyncIterator[Forward]:
    """`forward`, which answers for `table`, behind a cache, unless that is off.

    `store` is what the replicas share.
    """
    if settings.cache == "off":
        yield forward
        return
    policy = CachePolicy(
        by_tenant=settings.cache == "tenant",
        ttl_least_s=settings.cache_ttl_least_s,
        ttl_most_s=settings.cache_ttl_most_s,
        negative_ttl_s=settings.cache_negative_ttl_s,
        record_bytes=settings.cache_record_bytes,
        flight_s=settings.longest_request_s,
        lease_s=settings.cache_lease_s,
    )
    shared: SharedCache = NoSharedCache()
    if store is not None:
        shared = RedisCache(
            store,
            predictor=table.scope,
            lease_s=policy.lease_s,
            record_bytes=policy.record_bytes,
            ask_s=max(ASK_S, settings.redis_timeout_s),
        )
    shelf = Shelf(
        LocalCache(settings.cache_bytes), shared, Weights(shared, settings.cache_weights_id)
    )
    cached = CachedForward(forward, policy, shelf)
    try:
        yield cached
    finally:
        await cached.close()
