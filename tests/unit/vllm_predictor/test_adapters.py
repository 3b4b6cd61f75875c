"""Residency over a fake engine that refuses what a real one would: too many, unknown, twice."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openinference.errors import FailedDependency, NotFound, Unavailable
from vllm_predictor import adapters as module
from vllm_predictor.adapter_files import Catalog
from vllm_predictor.adapters import Adapters


class FakeEngine:
    """Holds at most `most` adapters; loads as long as `may_load` is set."""

    def __init__(self, most):
        self.most = most
        self.held = {}
        self.loads = []
        self.misfits = set()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.asked = asyncio.Event()

    async def load_adapter(self, adapter):
        self.loads.append(adapter.name)
        self.asked.set()
        await self.may_load.wait()
        self.held[adapter.number] = adapter
        assert len(self.held) <= self.most, "the engine would evict on its own"
        if adapter.name in self.misfits:
            raise RuntimeError("shape mismatch")

    async def unload_adapter(self, adapter):
        await asyncio.sleep(0)
        self.held.pop(adapter.number, None)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(module, "RECHECK_S", 0.0)


@pytest.fixture
def build(make_adapter, tmp_path):
    def make(*names, most=2, fixed=()):
        for name in (*names, *fixed):
            make_adapter(name)
        engine = FakeEngine(most)
        catalog = Catalog(
            {name: tmp_path / "adapters" / name for name in fixed}, tmp_path / "adapters"
        )
        return engine, Adapters(engine, catalog, most=most, max_rank=16)

    return make


async def _use(adapters, name):
    async with adapters.lease(name) as adapter:
        return adapter


async def test_an_adapter_is_loaded_once_and_stays(build):
    engine, adapters = build("a")
    first = await _use(adapters, "a")
    assert await _use(adapters, "a") is first
    assert engine.loads == ["a"]
    assert adapters.resident == ("a",)


async def test_all_who_wait_share_one_load_and_one_who_leaves_does_not_end_it(build):
    engine, adapters = build("a")
    engine.may_load.clear()
    tasks = [asyncio.create_task(_use(adapters, "a")) for _ in range(20)]
    await engine.asked.wait()
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    engine.may_load.set()
    loaded = await asyncio.gather(*tasks[1:])
    assert len({adapter.number for adapter in loaded}) == 1
    assert engine.loads == ["a"]


async def test_the_least_recently_used_leaves(build):
    engine, adapters = build("a", "b", "c")
    for name in ("a", "b", "a", "c"):
        await _use(adapters, name)
    assert adapters.resident == ("a", "c")
    assert {adapter.name for adapter in engine.held.values()} == {"a", "c"}


async def test_one_in_use_never_leaves_and_with_no_place_the_request_is_told_to_come_again(build):
    engine, adapters = build("a", "b", "c")
    async with adapters.lease("a") as used, adapters.lease("b"):
        with pytest.raises(Unavailable, match="all 2 places") as refused:
            await _use(adapters, "c")
        assert refused.value.retry_after_s
        assert used.number in engine.held
    await _use(adapters, "c")
    assert adapters.resident == ("b", "c")


async def test_one_place_for_two_who_ask_at_once_goes_to_one(build):
    _, adapters = build("a", "b", most=1)
    results = await asyncio.gather(_use(adapters, "a"), _use(adapters, "b"), return_exceptions=True)
    assert any(not isinstance(result, Exception) for result in results)
    assert all(not isinstance(r, Exception) or isinstance(r, Unavailable) for r in results)


async def test_an_unknown_name_is_not_found_and_reaches_nothing(build):
    engine, adapters = build("a")
    with pytest.raises(NotFound):
        await _use(adapters, "zzz")
    assert engine.loads == []


async def test_one_that_does_not_fit_is_taken_out_again_and_harms_nobody(build):
    engine, adapters = build("a", "bad")
    engine.misfits = {"bad"}
    async with adapters.lease("a") as used:
        with pytest.raises(FailedDependency, match="does not fit this model"):
            await _use(adapters, "bad")
        assert list(engine.held) == [used.number]
    assert adapters.failed("bad")
    assert not adapters.failed("a")


async def test_a_failure_is_remembered_until_the_files_change(build, make_adapter):
    engine, adapters = build("bad")
    engine.misfits = {"bad"}
    for _ in range(3):
        with pytest.raises(FailedDependency):
            await _use(adapters, "bad")
    assert engine.loads == ["bad"]
    engine.misfits = set()
    make_adapter("bad", fill=3.0)
    await _use(adapters, "bad")
    assert not adapters.failed("bad")


async def test_a_failure_is_tried_again_after_a_while(build, monkeypatch):
    engine, adapters = build("bad")
    engine.misfits = {"bad"}
    monkeypatch.setattr(module, "RETRY_FAILED_S", 0.0)
    for _ in range(2):
        with pytest.raises(FailedDependency):
            await _use(adapters, "bad")
    assert engine.loads == ["bad", "bad"]


async def test_changed_files_are_a_new_version_and_running_requests_keep_the_old(
    build, make_adapter
):
    engine, adapters = build("a")
    async with adapters.lease("a") as old:
        make_adapter("a", fill=2.0)
        new = await _use(adapters, "a")
        assert new.weights_id != old.weights_id
        assert new.engine_name != old.engine_name
        assert set(engine.held) == {old.number, new.number}
    assert set(engine.held) == {new.number}
    assert adapters.weights_id("a") == new.weights_id


async def test_a_loaded_adapter_whose_folder_is_broken_meanwhile_says_so(build, tmp_path):
    _, adapters = build("a")
    await _use(adapters, "a")
    (tmp_path / "adapters" / "a" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(FailedDependency):
        await _use(adapters, "a")


async def test_the_fixed_ones_are_loaded_before_anybody_asks(build):
    engine, adapters = build("other", fixed=("a", "b"))
    engine.misfits = {"a"}
    await adapters.preload()
    assert adapters.resident == ("b",)
    assert adapters.failed("a")


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.booleans()), max_size=25
    )
)
def test_over_any_interleaving_no_more_than_the_bound_are_held_and_users_keep_theirs(
    steps, tmp_path_factory
):
    asyncio.run(_interleave(steps, tmp_path_factory.mktemp("adapters")))


async def _interleave(steps, folder):
    import json

    import numpy as np
    from safetensors.numpy import save_file

    for name in "abcd":
        (folder / name).mkdir()
        config = {"peft_type": "LORA", "r": 4}
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
        save_file({"w": np.ones(4, np.float32)}, folder / name / "adapter_model.safetensors")
    engine = FakeEngine(2)
    adapters = Adapters(engine, Catalog({}, folder), most=2, max_rank=16)

    async def use(name, turns, leaves):
        async with adapters.lease(name) as adapter:
            for _ in range(turns):
                assert adapter.number in engine.held
                await asyncio.sleep(0.001)
            if leaves:
                raise asyncio.CancelledError

    tasks = []
    for name, turns, leaves in steps:
        tasks.append(asyncio.create_task(use(name, turns, leaves)))
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [r for r in results if isinstance(r, AssertionError)]
    async with AsyncExitStack() as all_places:
        for name in "ab":
            await all_places.enter_async_context(adapters.lease(name))
    assert len(engine.held) == 2
