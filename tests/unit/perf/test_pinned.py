"""What the kernel says of a server that runs as a child."""

import os

import psutil
import pytest
from pinned import PinnedServer, free_port

LISTENS = """
import signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
listener.accept()
signal.pause()
"""


@pytest.fixture
def server():
    port = free_port()
    core = min(os.sched_getaffinity(0))
    made = PinnedServer("listener", ["-c", LISTENS, str(port)], port=port, core=core)
    yield made
    made.end()


def test_its_cpu_time_is_what_the_process_burns_and_the_start_of_a_python(server, eventually):
    server.wait_until_listening()
    eventually(lambda: server.cpu_us() >= 200_000, "the 0.2 s that it burns")
    assert server.cpu_us() < 2_000_000


def test_its_memory_is_that_of_a_python(server):
    server.wait_until_listening()
    assert 5 < server.rss_mib() < 100


def test_a_server_that_ends_before_it_listens_is_told():
    made = PinnedServer("nothing", ["-c", "raise SystemExit(3)"], port=free_port())
    try:
        with pytest.raises(RuntimeError, match="nothing ended with status 3"):
            made.wait_until_listening()
    finally:
        made.end()


def test_an_engine_that_outlives_its_server_is_ended_too(tmp_path, eventually):
    told = tmp_path / "pid"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {deaf!r}])\n"
        f"pathlib.Path({str(told)!r}).write_text(str(child.pid))\n"
        "child.wait()"
    )
    made = PinnedServer("server", ["-c", parent], port=free_port(), children_end_s=0.1)
    eventually(lambda: told.exists() and told.read_text(), "the child's number")
    child = psutil.Process(int(told.read_text()))
    made.end()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
