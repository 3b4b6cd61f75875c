"""The limits' stage: clamp, reserve, let through, true up.

The meter is asked once before work. What was reserved is given back when the answer ends, fails or
is left, beside the request; and if this process dies, when the lease ends, which is the request's
own deadline.
"""

from collections.abc import AsyncGenerator
from typing import Final

from llm_transformer.auth import Identity
from llm_transformer.forward import Forward
from llm_transformer.limits import headers, metrics, tokens, usage
from llm_transformer.limits.addresses import ClientAddresses
from llm_transformer.limits.meter import Ask, Lease, Meter
from llm_transformer.limits.plans import Plan, Plans
from llm_transformer.limits.rules import Limit, Limits, Verdict
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
        self.limits: Limits = plan.limits()
        self.policy = headers.policy(self.limits)
        self.budget = None if self.limits.tokens is None else int(self.limits.tokens.burst)
        self.longest_prompt = plan.max_prompt_tokens
        # The longest answer, by route where a route has one of its own.
        self.longest = {route: plan.longest_answer(route) for route in plan.max_tokens_by_route}
        self.longest_elsewhere = plan.max_tokens


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
            longest=terms.longest.get(context.caller.route, terms.longest_elsewhere),
            longest_prompt=terms.longest_prompt,
            budget=terms.budget,
        )
        lease = None
        if terms.policy:
            ask = self._ask(request, context, identity, terms, prompt_bound)
            verdict, lease = await self._meter.reserve(ask)
            _tell(verdict, ask, context, terms)
        # By index, the last one seen of each sequence.
        last: dict[int, Chunk] = {}
        error: BaseException | None = None
        try:
            chunks = self._forward.generate(request, context)
            # As aclosing does, at a third of its cost.
            try:
                async for chunk in chunks:
                    last[chunk.index] = chunk
                    yield chunk
            finally:
                await chunks.aclose()
        except BaseException as problem:
            error = problem
            raise
        finally:
            if lease is not None:
                charged = usage.charge(request, prompt_bound, last, context.reply, error)
                self._true_up(lease, charged)

    def _ask(
        self,
        request: GenerationRequest,
        context: RequestContext,
        identity: Identity,
        terms: _Terms,
        prompt_bound: int,
    ) -> Ask:
        limits = terms.limits
        left_s = context.remaining_s(clock.now())
        return Ask(
            identity.tenant or NO_TENANT,
            identity.key_id,
            "" if limits.address is None else self._addresses.of(context.caller),
            limits,
            1 if limits.tokens is None else prompt_bound + tokens.answer_bound(request),
            (self._longest_request_s if left_s is None else left_s) + LEASE_MARGIN_S,
        )

    def _true_up(self, lease: Lease, charged: int) -> None:
        if lease.rate is not None:
            metrics.CHARGED.inc(charged)
            if charged > lease.tokens:
                metrics.UNDERRESERVED.inc()
        self._meter.settle(lease, charged)


def _tell(verdict: Verdict, ask: Ask, context: RequestContext, terms: _Terms) -> None:
    """Tells the caller where it stands; raises RateLimited when it has been refused."""
    reply_headers = context.reply.headers
    reply_headers[headers.POLICY] = terms.policy
    reply_headers[headers.STATE] = headers.state(ask.limits, verdict)
    if verdict.refused is not None:
        metrics.REFUSED.labels(verdict.refused, terms.name).inc()
        retry_s = verdict.retry_ms / 1000
        raise RateLimited(
            f"{_SENTENCES[verdict.refused]} for your plan; try again in {retry_s:.3g} s",
            retry_after_s=retry_s,
        )
    if ask.limits.tokens is not None:
        metrics.RESERVED.inc(ask.tokens)
