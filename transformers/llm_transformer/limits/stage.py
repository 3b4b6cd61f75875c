"""The limits' stage: clamp, reserve, let through, true up.

The meter is asked once before work. What was reserved is given back when the answer ends, fails or
is left, beside the request; and if this process dies, when the lease ends, which is the request's
own deadline.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from llm_transformer.auth import Identity
from llm_transformer.forward import Forward
from llm_transformer.limits import headers, metrics, tokens
from llm_transformer.limits.addresses import ClientAddresses
from llm_transformer.limits.meter import Ask, Lease, Meter
from llm_transformer.limits.plans import Plan, Plans
from llm_transformer.limits.rules import Limit, Limits
from llm_transformer.limits.usage import Used
from openinference import clock
from openinference.context import RequestContext
from openinference.errors import RateLimited
from openinference.generation import Chunk, GenerationRequest

# Beyond a request's deadline, for its last true-up.
LEASE_MARGIN_S: Final = 5.0
# Callers of no tenant: no name of a tenant looks like it.
NO_TENANT: Final = "@"
_SENTENCES: Final = {
    Limit.REQUESTS: "too many requests",
    Limit.ADDRESS: "too many requests from your address",
    Limit.CONCURRENT: "too many requests at a time",
    Limit.TOKENS: "too many tokens",
}


class _Terms:
    """A plan, ready for use."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self.plan = plan
        self.limits: Limits = plan.limits()
        self.policy = headers.policy(self.limits)
        self.counts_tokens = plan.tokens is not None
        self.budget = None if self.limits.tokens is None else int(self.limits.tokens.burst)


class LimitStage:
    """A stage between auth and what answers."""

    def __init__(
        self,
        forward: Forward,
        meter: Meter,
        plans: Plans,
        *,
        addresses: ClientAddresses,
        template_tokens: int,
        longest_request_s: float,
    ) -> None:
        """`longest_request_s` bounds the lease of a request without a deadline."""
        self._forward = forward
        self._meter = meter
        self._terms = {name: _Terms(name, plan) for name, plan in plans.plans.items()}
        self._addresses = addresses
        self._template_tokens = template_tokens
        self._longest_request_s = longest_request_s

    async def generate(
        self, request: GenerationRequest, context: RequestContext, identity: Identity
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks that answer `request` once it may pass, within what its plan allows.

        Raises RateLimited, and PayloadTooLarge for what could never pass.
        """
        terms = self._terms[identity.plan]
        prompt_bound = tokens.prompt_bound(request.prompts, template_tokens=self._template_tokens)
        request = tokens.fitted(
            request,
            prompt_bound,
            longest=terms.plan.longest_answer(context.caller.route),
            longest_prompt=terms.plan.max_prompt_tokens,
            budget=terms.budget,
        )
        lease = await self._reserve(request, context, identity, terms, prompt_bound)
        if lease is None:
            async with aclosing(self._forward.generate(request, context)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        used = Used(request, prompt_bound)
        error: BaseException | None = None
        try:
            async with aclosing(self._forward.generate(request, context)) as chunks:
                async for chunk in chunks:
                    used.add(chunk)
                    yield chunk
        except BaseException as problem:
            error = problem
            raise
        finally:
            self._true_up(lease, used.tokens(context.reply, error))

    async def _reserve(
        self,
        request: GenerationRequest,
        context: RequestContext,
        identity: Identity,
        terms: _Terms,
        prompt_bound: int,
    ) -> Lease | None:
        if not terms.policy:
            return None
        reserved = prompt_bound + tokens.answer_bound(request) if terms.counts_tokens else 1
        verdict, lease = await self._meter.reserve(
            Ask(
                identity.tenant or NO_TENANT,
                identity.key_id,
                self._addresses.of(context.caller) if terms.limits.address is not None else "",
                terms.limits,
                reserved,
                self._lease_s(context),
            )
        )
        context.reply.headers[headers.POLICY] = terms.policy
        context.reply.headers[headers.STATE] = headers.state(verdict.standing)
        if verdict.refused is not None:
            metrics.REFUSED.labels(verdict.refused, terms.name).inc()
            retry_s = verdict.retry_ms / 1000
            raise RateLimited(
                f"{_SENTENCES[verdict.refused]} for your plan; try again in {retry_s:.3g} s",
                retry_after_s=retry_s,
            )
        if terms.counts_tokens:
            metrics.RESERVED.inc(reserved)
        return lease

    def _lease_s(self, context: RequestContext) -> float:
        now = clock.now()
        left = context.remaining_s(now)
        return (self._longest_request_s if left is None else left) + LEASE_MARGIN_S

    def _true_up(self, lease: Lease, charged: int) -> None:
        if lease.rate is not None:
            metrics.CHARGED.inc(charged)
            if charged > lease.tokens:
                metrics.UNDERRESERVED.inc()
        self._meter.settle(lease, charged)
