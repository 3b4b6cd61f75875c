"""What is done to the stages as the server is put together: nothing, or spans (traced.py)."""

from llm_transformer.cache.stage import Predictor
from llm_transformer.forward import Forward
from llm_transformer.service import Authenticates, Limits


class Untraced:
    """Each stage as it is; what Traced overrides."""

    def forward(self, forward: Predictor) -> Predictor:
        return forward

    def cache(self, cache: Forward) -> Forward:
        return cache

    def auth(self, auth: Authenticates) -> Authenticates:
        return auth

    def limits(self, limits: Limits | None) -> Limits | None:
        return limits
