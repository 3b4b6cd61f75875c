"""Stages over a scripted predictor; tests may look into their shelves and move the clock."""

import pytest

from llm_transformer.cache.local import LocalCache
from llm_transformer.cache.policy import CachePolicy
from llm_transformer.cache.shared import NoSharedCache
from llm_transformer.cache.shelf import Shelf
from llm_transformer.cache.stage import CachedForward
from llm_transformer.cache.weights import Weights

from .scripted import Clock, FakePredictor


@pytest.fixture
async def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def predictor():
    return FakePredictor()


@pytest.fixture
async def make(predictor):
    """Makes stages, several replicas over one L2 if asked, and closes them."""
    stages = []

    def stage(*, shared=None, most_bytes=2**20, assumed=None, forward=predictor, **policy):
        shared = shared or NoSharedCache()
        shelf = Shelf(LocalCache(most_bytes), shared, Weights(shared, assumed))
        stages.append(CachedForward(forward, CachePolicy(**policy), shelf))
        stages[-1].shelf = shelf
        return stages[-1]

    yield stage
    for each in stages:
        await each.close()
