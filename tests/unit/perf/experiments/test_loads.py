"""How loads are offered: again where the driver was late, and with what stack."""

import loads
import pytest
from figures import LATE_MS
from stacks import ALONE, KEEPWARM, NO_BOUNDS, NO_CACHE, Engine


@pytest.mark.parametrize(
    ("late_ms", "kept"),
    [([1.0, 9.0], 1.0), ([50.0, 5.0], 5.0), ([50.0, 80.0], 50.0)],
    ids=["in time", "in time at the second try", "late twice"],
)
async def test_a_load_whose_driver_was_late_is_offered_once_more(row, late_ms, kept):
    runs = iter([row(late_p99_ms=late).figures for late in late_ms])

    async def measure():
        return next(runs)

    seen = await loads._least_late(measure, loads.TRIES)
    assert seen.late_p99_ms == kept
    assert len(list(runs)) == (late_ms[0] <= LATE_MS)


def test_every_load_is_offered_to_keepwarm_and_to_what_a_user_has_without_it():
    for each in (loads.BASELINE, loads.PEAK, loads.LIMIT):
        stacks = [stack for stack, _ in each.runs]
        assert {ALONE, NO_CACHE, KEEPWARM} <= set(stacks)
        assert set(each.short) <= set(each.full)
    assert NO_BOUNDS in [stack for stack, _ in loads.PEAK.runs]


def test_an_engine_is_told_what_it_is_and_its_flags():
    simulated = Engine("h200-fp8", max_num_seqs=8)
    assert "no GPU" in simulated.label
    arguments = simulated.arguments(1, 2)
    assert "--profile=h200-fp8" in arguments
    assert "--max_num_seqs=8" in arguments
    from pathlib import Path

    raw = Engine("raw", Path("/models/llama"), flags=("--dtype=bfloat16",))
    assert not raw.speaks_v2
    assert raw.label == "vLLM's own server, llama"
    assert raw.arguments(1, 2)[1] == "vllm.entrypoints.openai.api_server"
    assert raw.arguments(1, 2)[-1] == "--dtype=bfloat16"


def test_an_fp8_predictor_is_ours_with_the_profile_of_that_name():
    from pathlib import Path

    ours = Engine("ours-fp8", Path("/models/llama"))
    assert ours.speaks_v2
    assert "--profile=gpu-fp8" in ours.arguments(1, 2)
    assert ours.label == "our predictor, fp8, llama"


def test_a_line_for_each_request_is_asked_of_no_server():
    from pathlib import Path

    assert "--disable-uvicorn-access-log" in Engine("raw", Path("/m")).arguments(1, 2)
