"""A process begun early does what it is given, and never outlives who began it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vllm_predictor.early_process import EarlyContext, EarlyProcess

BEGINS_ONE = """
import sys
from vllm_predictor.early_process import EarlyProcess
if __name__ == "__main__":
    early = EarlyProcess(first=())
    early.begin()
    print(early.pid, flush=True)
    sys.stdin.read()
"""


AHEAD = """
import os
def nothing(settings):
    return lambda arguments: arguments
def makes(settings):
    os.mkdir(settings)
    return lambda arguments: {**arguments, "mode": 0o700}
"""


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EarlyProcess]]:
    (tmp_path / "ahead_of_test.py").write_text(AHEAD)
    monkeypatch.syspath_prepend(tmp_path)
    begun: list[EarlyProcess] = []

    def begin(ahead: str = "nothing") -> EarlyProcess:
        process = EarlyProcess(first=("json",), ahead=f"ahead_of_test:{ahead}")
        process.begin()
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.abandon()
        process.join(10)


@pytest.fixture
def early(begin: Callable[..., EarlyProcess]) -> EarlyProcess:
    return begin()


def test_it_works_ahead_and_puts_what_it_made_into_its_work(
    begin: Callable[..., EarlyProcess], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    early = begin("makes")
    early.prepare(str(tmp_path / "ahead"))
    eventually((tmp_path / "ahead").is_dir, "it works before it is given anything")
    made = tmp_path / "made"
    process = EarlyContext(early).Process(target=os.mkdir, args=(str(made),), kwargs={"mode": 0})
    process.start()
    process.join(20)
    assert made.stat().st_mode & 0o777 == 0o700


def test_its_work_runs_in_the_process_that_was_begun(early: EarlyProcess, tmp_path: Path) -> None:
    made = tmp_path / "made"
    pid = early.pid
    early.prepare(None)
    process = EarlyContext(early).Process(target=os.mkdir, args=(str(made),), name="engine")
    process.start()
    process.join(20)
    assert (process.exitcode, process.pid, process.name) == (0, pid, "engine")
    assert made.is_dir()


def test_its_work_sees_the_environment_of_the_moment(
    early: EarlyProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPWARM_TEST_OLD", "1")
    early.prepare(None)
    monkeypatch.delenv("KEEPWARM_TEST_OLD")
    monkeypatch.setenv("KEEPWARM_TEST_NEW", "2")
    seen = tmp_path / "seen"
    command = ["sh", "-c", f"env | grep KEEPWARM_TEST > {seen}"]
    process = EarlyContext(early).Process(target=subprocess.run, args=(command,))
    process.start()
    process.join(20)
    assert seen.read_text() == "KEEPWARM_TEST_NEW=2\n"


def test_what_its_work_raises_is_its_exit_status(early: EarlyProcess, tmp_path: Path) -> None:
    early.prepare(None)
    process = EarlyContext(early).Process(target=os.mkdir, args=(str(tmp_path),))
    process.start()
    process.join(20)
    assert process.exitcode == 1


def test_the_second_process_of_a_context_is_a_new_one(early: EarlyProcess, tmp_path: Path) -> None:
    context = EarlyContext(early)
    first = context.Process(target=os.mkdir, args=(str(tmp_path / "first"),))
    second = context.Process(target=os.mkdir, args=(str(tmp_path / "second"),))
    assert first is early
    second.start()
    second.join(20)
    assert second.pid != early.pid
    assert (tmp_path / "second").is_dir()


def test_one_that_was_killed_is_replaced_by_a_new_one(early: EarlyProcess, tmp_path: Path) -> None:
    early.kill()
    early.join(10)
    early.prepare(None)
    process = EarlyContext(early).Process(target=os.mkdir, args=(str(tmp_path / "made"),))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("how", [signal.SIGKILL, None], ids=["killed", "exits"])
def test_it_does_not_outlive_a_parent_that_gave_it_nothing(
    how: signal.Signals | None, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    script = tmp_path / "begins_one.py"
    script.write_text(BEGINS_ONE)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        if how is not None:
            parent.send_signal(how)
    assert parent.returncode == (0 if how is None else -how)
    eventually(lambda: not child.is_running(), "the child is gone")
