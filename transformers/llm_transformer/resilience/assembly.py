"""The last stage, put together from the settings."""

from llm_transformer.predictor_client import PredictorClient
from llm_transformer.resilience.backlog import BacklogPolicy
from llm_transformer.resilience.breaker import BreakerPolicy, CircuitBreaker
from llm_transformer.resilience.gate import Gate
from llm_transformer.resilience.limit import ConcurrencyLimit
from llm_transformer.resilience.retry_budget import RetryBudget
from llm_transformer.resilience.shared_start_times import SharedStartTimes
from llm_transformer.resilience.stage import ForwardStage
from llm_transformer.resilience.start_times import NoStore, StartTimes
from llm_transformer.resilience.wakeup import Probe, WakePolicy, Wakeup
from llm_transformer.settings import TransformerSettings
from llm_transformer.store import Store


def forward_stage(
    settings: TransformerSettings,
    model: str,
    predictor: PredictorClient,
    store: Store | None = None,
) -> ForwardStage:
    """The stage in front of `predictor`; `store` keeps its start times beyond the process.

    `model` stands for the predictor: whether that can answer tells whether it is awake.
    """

    async def probe(timeout_s: float) -> Probe:
        return await predictor.probe(model, timeout_s)

    wakeup = Wakeup(
        model,
        probe,
        WakePolicy(
            idle_s=settings.predictor_idle_s,
            unreachable_s=settings.unreachable_hold_s,
            probe_s=settings.longest_request_s,
            most_held=settings.queue_most,
            most_probes=settings.wake_probes,
        ),
        StartTimes(settings.expected_start_s),
        SharedStartTimes(store, model) if store else NoStore(),
    )
    gate = Gate(
        BacklogPolicy(
            target_s=settings.queue_target_s,
            interval_s=settings.queue_interval_s,
            longest_s=settings.queue_longest_s,
            most=settings.queue_most,
        ),
        ConcurrencyLimit(settings.predictor_concurrency, queue_s=settings.engine_queue_target_s),
        model=model,
    )
    return ForwardStage(
        predictor,
        model=model,
        wakeup=wakeup,
        gate=gate,
        breaker=CircuitBreaker(BreakerPolicy()),
        budget=RetryBudget(),
    )
