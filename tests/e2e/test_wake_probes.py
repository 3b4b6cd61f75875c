"""A burst from zero with --wake_probes: what it needs is started at once, not one predictor first.

The engine is one of fixed speed that takes a while to load; Knative's whole path is real.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from . import fixed_engine
from .conftest import Chat, is_ready, served
from .streams import Streams

NAMESPACE = "keepwarm-e2e-wake"
# 20 callers are 3.6 pods at 70 % of TARGET.
SLOTS = TARGET = 8
MOST = 4
TOKEN_MS, TOKENS = 100, 10
BURST = 20
# Several of the autoscaler's ticks of 2 s.
LOAD_S = 15


@pytest.fixture(scope="module")
def waking() -> Iterator[Chat]:
    manifest = fixed_engine.manifest(
        slots=SLOTS,
        token_ms=TOKEN_MS,
        target=TARGET,
        most=MOST,
        window="8s",
        load_s=LOAD_S,
        transformer_flags=[f"--wake_probes={BURST}"],
    )
    with served(manifest, NAMESPACE) as chat:
        yield chat


def test_a_burst_from_zero_starts_all_that_it_needs_before_any_of_them_is_ready(
    waking: Chat, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    eventually(lambda: not waking.pods("predictor"), "the predictor is at zero", timeout_s=300)
    began = time.monotonic()
    answer = fixed_engine.answer()
    with Streams(waking, callers=BURST, tokens=TOKENS, answer=answer) as streams:
        eventually(lambda: len(waking.pods("predictor")) == MOST, "all exist", timeout_s=LOAD_S)
        assert not any(map(is_ready, waking.pods("predictor")))
        measured(f"burst of {BURST} from zero: {MOST} predictors exist", time.monotonic() - began)
        eventually(lambda: len(streams.told) >= BURST, "everybody is answered", timeout_s=120)
    assert not streams.broken, [stream.problem for stream in streams.broken]
    measured("... and everybody has been answered", time.monotonic() - began)
