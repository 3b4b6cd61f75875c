"""The engine's process, begun with ours: it imports vLLM and loads the model while we import.

vLLM starts its engine's process when the front end has imported everything and read the model's
configuration, and that process then imports all of it again. Ours begins first, does all that needs
no front end, and then waits for the call that vLLM would have begun it with. It is an ordinary
child in every other way: vLLM watches and ends it as its own.
"""

import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context, process
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vllm_predictor.settings import PredictorSettings

# An interpreter reads them when it begins, so they are in its environment or have no effect.
UNWANTED_WARNINGS: Final = "ignore::FutureWarning,ignore:resource_tracker:UserWarning"
# What takes the settings, does what can be done ahead, and returns what that makes of the call's
# arguments; a name, as importing it takes a while.
AHEAD: Final = "vllm_predictor.engine_ahead:begin"


class EarlyProcess(SpawnProcess):
    """A child that is begun once by `begin` and given its work by `start`."""

    def __init__(self, first: Sequence[str] = ("torch",), ahead: str = AHEAD) -> None:
        """Imports the modules `first` before it knows the settings, and then calls `ahead`."""
        receiving, self._calls = get_context("spawn").Pipe(duplex=False)
        super().__init__(target=_wait_for_work, args=(receiving, first, ahead), name="EngineCore")
        self._receiving = receiving
        self._work: tuple[Callable[..., None], tuple[Any, ...], Mapping[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What the child gets: not our end of the pipe, or it would never see that we are gone."""
        return {k: v for k, v in self.__dict__.items() if k not in {"_calls", "_receiving"}}

    def begin(self) -> None:
        """Starts the process; it imports torch and waits for `prepare`."""
        os.environ.setdefault("PYTHONWARNINGS", UNWANTED_WARNINGS)
        super().start()
        # multiprocessing waits at the exit for children that are not its daemons.
        atexit.register(self.abandon)
        # The child's end: else its reader would never see that we are gone.
        self._receiving.close()

    def prepare(self, settings: "PredictorSettings") -> None:
        """Hands over this process's environment and the settings, after which it works ahead.

        A child that has ended is left to be found by whoever started it.
        """
        with contextlib.suppress(BrokenPipeError):
            self._calls.send((dict(os.environ), settings))

    def give(
        self, target: Callable[..., None], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Sets what `start` lets the process do."""
        self._work = (target, args, kwargs)

    def start(self) -> None:
        """Lets the process do what was given to it, with the environment as it is now."""
        assert self._work is not None, "nothing was given to this process"
        with contextlib.suppress(BrokenPipeError):
            self._calls.send((dict(os.environ), *self._work))
        self._calls.close()
        self._work = None
        atexit.unregister(self.abandon)

    def abandon(self) -> None:
        """Ends the process; for one that was given no work."""
        self.kill()


class EarlyContext(SpawnContext):
    """A multiprocessing context whose first process is one that has begun already."""

    def __init__(self, early: EarlyProcess) -> None:
        self._early: EarlyProcess | None = early

    def Process(  # type: ignore[override]  # noqa: N802 (multiprocessing's name)
        self,
        group: None = None,
        target: Callable[..., None] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> SpawnProcess:
        """The process begun early, the first time; new ones after that."""
        early, self._early = self._early, None
        if early is None or target is None or not early.is_alive():
            return SpawnProcess(group, target, name, args, dict(kwargs or {}), daemon=daemon)
        early.name = name or early.name
        early.give(target, args, kwargs or {})
        return early


def _wait_for_work(calls: "Connection[Any, Any]", first: Sequence[str], ahead: str) -> None:
    """The child: imports, then does what it is told; ends when the parent is gone."""
    # Ctrl-C is the parent's to answer; vLLM sets handlers of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imports leave no garbage, and looking for it is a fifth of their time.
    gc.disable()
    for name in first:
        importlib.import_module(name)
    try:
        environment, settings = calls.recv()
    except EOFError:
        return
    _become(environment)
    with_what_is_there = pkgutil.resolve_name(ahead)(settings)
    try:
        environment, target, args, kwargs = calls.recv()
    except EOFError:
        return
    calls.close()
    _become(environment)
    _set_threads()
    gc.freeze()
    gc.enable()
    process.current_process().name = "EngineCore"
    target(*args, **with_what_is_there(kwargs))


def _become(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _set_threads() -> None:
    """Obeys OMP_NUM_THREADS, which vLLM sets for its child and torch reads when imported."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    torch = sys.modules.get("torch")
    if torch is not None and threads.isdecimal() and int(threads) > 0:
        torch.set_num_threads(int(threads))
