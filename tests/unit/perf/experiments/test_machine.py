"""The cores that a server's process and those below it use."""

import os
import subprocess
import sys

import pytest
from machine import Watch

BURNS = "while True: pass"


@pytest.fixture
def started():
    """Starts Python programs and ends them."""
    processes = []

    def start(program):
        # In a session of its own, so that its children end with it.
        processes.append(subprocess.Popen([sys.executable, "-c", program], start_new_session=True))
        return processes[-1].pid

    yield start
    for process in processes:
        os.killpg(process.pid, 9)
        process.wait()


def test_what_an_engines_own_process_uses_is_told_beside_the_server_that_answers(
    started, eventually
):
    waits = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURNS!r}])"
    watch = Watch({"engine": started(waits), "transformer": started(BURNS)})
    watch.begin()

    def used():
        return watch.end().cores

    eventually(lambda: used().get("engine's children", 0) > 0.05, "the child's work")
    cores = used()
    assert set(cores) == {"engine", "engine's children", "transformer", "driver"}
    assert cores["engine"] < cores["engine's children"]
