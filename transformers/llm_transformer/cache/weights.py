"""Which weights a model has now, as far as answers have told: what was kept of others is dead.

A predictor says with each answer what answered. Nobody asks it beside that: the question would keep
it from going to zero. So after a change kept answers live on until the first answer of the new
weights, or until they expire; the other replicas hear of that answer within CHECK_S.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from llm_transformer.cache.shared import SharedCache

# How old what is known of other replicas' answers may be, in seconds.
CHECK_S: Final = 5.0
# How often an unchanged id is told again while no answer is kept, in seconds.
TELL_S: Final = 60.0


class Weights:
    """The weights id of each model."""

    def __init__(self, shared: SharedCache, assumed: str | None) -> None:
        """`assumed` is the id of a predictor that tells none."""
        self._shared = shared
        self._assumed = assumed
        self._ids: dict[str, str] = {}
        self._told_at: dict[str, float] = {}
        self._checked_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def current(self, model: str) -> str | None:
        """The weights that `model` had when it was last heard of; None is not known."""
        return self._ids.get(model, self._assumed)

    def learn(self, model: str, told: str | None) -> str | None:
        """The weights of an answer that told `told`; they are now the model's."""
        if told is None:
            return self._assumed
        if self._ids.get(model) != told:
            self._ids[model] = told
            self._told_at.pop(model, None)
        return told

    async def tell(self, model: str, now: float) -> None:
        """Tells the other replicas what was learned."""
        weights_id = self._ids.get(model)
        if weights_id is not None:
            self._told_at[model] = now
            await self._shared.tell_weights(model, weights_id)

    def tell_later(self, model: str, now: float) -> None:
        """`tell` beside the requests, unless that was done lately."""
        if model in self._ids and now - self._told_at.get(model, -TELL_S) >= TELL_S:
            self._beside(self.tell(model, now))

    async def refresh(self, model: str, now: float) -> None:
        """Hears what the other replicas have learned."""
        self._checked_at[model] = now
        told = await self._shared.weights_id(model)
        if told is not None:
            self._ids[model] = told

    async def known(self, model: str, now: float) -> None:
        """Returns when the weights are known, if any replica knows them."""
        if model not in self._ids and self._is_due(model, now):
            await self.refresh(model, now)

    def check(self, model: str, now: float) -> None:
        """Has what is known looked at beside the requests, if that was not done lately."""
        if self._is_due(model, now):
            self._checked_at[model] = now
            self._beside(self.refresh(model, now))

    async def close(self) -> None:
        """Ends what runs beside the requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_due(self, model: str, now: float) -> bool:
        return now - self._checked_at.get(model, -CHECK_S) >= CHECK_S
