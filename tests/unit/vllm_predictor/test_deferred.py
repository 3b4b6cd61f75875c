"""Deferred modules: empty until used, then the real thing; vLLM's, against the pinned release."""

import importlib
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_predictor import deferred

MODULE = """
import sys
sys.executed.append(__name__)
class Thing:
    kind = "real"
    def __init__(self, size=1): self.size = size
def double(number): return 2 * number
"""
CIRCLE = "import sys\nsys.executed.append(__name__)\nfrom heavy import first\nNAME = first.NAME\n"


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the test's modules in the order in which they were executed."""
    (tmp_path / "slow.py").write_text(MODULE)
    package = tmp_path / "heavy"
    package.mkdir()
    (package / "__init__.py").write_text(f"{MODULE}\nfrom heavy import first, second\n")
    (package / "first.py").write_text(f"{MODULE}\nNAME = __name__\nimport heavy.second\n")
    (package / "second.py").write_text(CIRCLE)
    (package / "alone.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []
    monkeypatch.setattr(sys, "executed", names, raising=False)
    monkeypatch.setattr(deferred, "STANDALONE", frozenset({"heavy.alone"}))
    finder = deferred.Finder({"slow": frozenset({"Thing", "double"}), "heavy": frozenset()})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield names
    for name in [name for name in sys.modules if name.partition(".")[0] in {"slow", "heavy"}]:
        del sys.modules[name]


def test_a_listed_name_is_taken_without_executing_its_module(executed: list[str]) -> None:
    from slow import Thing, double  # type: ignore[import-not-found]

    assert not isinstance("text", Thing)
    assert Thing | None is not None
    assert executed == []
    assert double(4) == 8
    assert executed == ["slow"]
    assert isinstance(Thing(3), Thing)
    assert (Thing(3).size, Thing.kind) == (3, "real")


def test_a_class_can_be_derived_from_a_name_that_was_deferred(executed: list[str]) -> None:
    from slow import Thing

    class Other(Thing):  # type: ignore[misc]
        pass

    assert (Other(5).size, Other.kind) == (5, "real")
    assert executed == ["slow"]


def test_any_other_name_executes_the_module_in_the_object_that_was_handed_out(
    executed: list[str],
) -> None:
    import slow

    before = slow
    assert executed == []
    assert slow.__file__.endswith("slow.py")
    assert slow.sys is sys
    assert executed == ["slow"]
    assert type(slow) is types.ModuleType
    assert importlib.import_module("slow") is before
    assert slow.double(1) == 2


def test_a_name_that_is_nowhere_is_the_usual_error(executed: list[str]) -> None:
    import slow

    with pytest.raises(AttributeError, match="'slow' has no attribute 'nothing'"):
        _ = slow.nothing
    with pytest.raises(ImportError):
        from slow import nothing  # noqa: F401
    assert executed == ["slow"]


def test_a_module_of_a_package_is_executed_in_the_order_of_its_package(
    executed: list[str],
) -> None:
    from heavy import alone  # type: ignore[import-not-found]

    assert executed == ["heavy.alone"]
    import heavy.second

    assert executed == ["heavy.alone", "heavy", "heavy.first", "heavy.second"]
    assert heavy.second.NAME == "heavy.first"
    assert alone.double(2) == 4
    assert heavy.second.__spec__.loader is heavy.second.__loader__


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_listed_name_is_in_its_module_in_the_pinned_release() -> None:
    # One of another release is taken from vLLM 0.25, which a GPU of ours still runs.
    assert (
        _python(
            """
import importlib
from vllm_predictor import deferred
names = {**deferred.UNUSED, **deferred.COMPILER}
lost = [(module, name) for module, listed in names.items() for name in listed
        if not hasattr(importlib.import_module(module), name)]
print(lost)
"""
        )
        == "[('vllm.transformers_utils.processor', 'call_hf_processor_mm_only')]\n"
    )


def test_the_front_end_executes_nothing_that_was_deferred_and_all_of_it_works_afterwards() -> None:
    assert _python(
        """
import sys
from vllm_predictor import deferred
deferred.install(compiler=True)
import vllm_predictor.engine
listed = {**deferred.UNUSED, **deferred.COMPILER}
def waiting(): return {n for n in listed if isinstance(sys.modules.get(n), deferred.DeferredModule)}
print("torch._dynamo" in waiting(), "torch._dynamo.convert_frame" in sys.modules)
import torch
@torch.compile(backend="eager")
def double(tensor): return tensor * 2
print(double(torch.ones(2)).tolist(), sorted(waiting() & set(deferred.COMPILER)))
from transformers import AutoImageProcessor, AutoProcessor
from vllm.transformers_utils.processor import cached_get_processor
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.parser.engine.adapters import ParserEngineToolAdapter
print(AutoImageProcessor.__module__, callable(cached_get_processor))
"""
    ).splitlines()[-3:] == [
        "True False",
        "[2.0, 2.0] []",
        "transformers.models.auto.image_processing_auto True",
    ]


def test_options_of_a_compiled_function_are_kept_until_it_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", deferred.DeferredModule("torch._dynamo"))
    compiled: list[tuple[str, bool]] = []

    def compile_(function: Callable[..., int], *, dynamic: bool) -> Callable[..., int]:
        compiled.append((function.__name__, dynamic))
        return function

    class Owner:
        @deferred.waiting(compile_)(dynamic=True)
        def grown(self, number: int) -> int:
            return number + 1

    assert compiled == []
    assert [Owner().grown(1), Owner().grown(2)] == [2, 3]
    assert compiled == [("grown", True)]
