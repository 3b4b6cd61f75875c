"""Modules that are imported when they are first used: half of an import of vLLM is never needed.

A text model whose kernels come ready-made touches neither torch's compiler nor what vLLM imports
for pictures and tool calls, and these take half of its import. A finder hands out such modules
empty; the first attribute that somebody asks for executes the real one in the very same object.
Names that vLLM itself asks for while it is imported (`from module import name`) are listed here:
they are handed out as placeholders, which find the real thing when they are called or asked. So a
name that is missing below costs time and changes nothing.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

logger = logging.getLogger("vllm_predictor.deferred")

Names = Mapping[str, frozenset[str]]

# Pictures, sound and text generation of HuggingFace's own, and vLLM's parsers of tool calls.
UNUSED: Final[Names] = {
    "transformers.conversion_mapping": frozenset(
        {"get_checkpoint_conversion_mapping", "register_checkpoint_conversion_mapping"}
    ),
    "transformers.generation.utils": frozenset({"GenerationMixin"}),
    "transformers.models.auto.image_processing_auto": frozenset({"get_image_processor_config"}),
    "vllm.model_executor.layers.attention.mm_encoder_attention": frozenset({"MMEncoderAttention"}),
    "vllm.model_executor.layers.quantization.online.base": frozenset({"OnlineQuantizationConfig"}),
    "vllm.model_executor.layers.quantization.online.fp8": frozenset({"OnlineLinearBase"}),
    "vllm.transformers_utils.processor": frozenset(
        {
            "cached_get_processor",
            "cached_processor_from_config",
            "call_hf_processor_mm_only",
            "get_processor_config",
            "get_video_processor_cls_name",
        }
    ),
    "vllm.entrypoints.mcp.tool_server": frozenset({"ToolServer"}),
    "vllm.parser": frozenset(),
    "vllm.parser.engine": frozenset(),
    "vllm.parser.engine.adapters": frozenset({"ParserEngineReasoningAdapter"}),
}
# torch's compiler, and vLLM's repairs of it.
COMPILER: Final[Names] = {
    "torch._dynamo": frozenset(),
    "torch._dynamo.symbolic_convert": frozenset({"InliningInstructionTranslator"}),
    "torch._dynamo.trace_rules": frozenset(),
    "torch._inductor": frozenset(),
    "vllm.compilation.caching": frozenset({"aot_compile_hash_factors"}),
    "vllm.env_override": frozenset({"_apply_constrain_to_fx_strides_patch"}),
}
# Modules of a package that stand by themselves. Importing any other one executes the package first:
# the compiler's modules import each other in circles, and only in the package's order.
STANDALONE: Final = frozenset(
    {
        "torch._dynamo.callback",
        "torch._dynamo.config",
        "torch._dynamo.device_interface",
        "torch._dynamo.graph_utils",
        "torch._dynamo.metrics_context",
        "torch._dynamo.utils",
        "torch._inductor.analysis",
        "torch._inductor.config",
        "torch._inductor.custom_graph_pass",
        "torch._inductor.runtime",
        "torch._inductor.utils",
    }
)
# Decorators that only mark a function for the compiler; they are applied when it is there.
_MARKS: Final = frozenset({"allow_in_graph", "assume_constant_result"})
# What has nothing to do before its module was executed: torch asks for it whenever it sees one.
_IDLE: Final[Names] = {"torch._dynamo.trace_rules": frozenset({"clear_lru_cache"})}
_COMPILER: Final = "torch._dynamo"
_REPAIRS: Final = "vllm.env_override"
# What vLLM's repairs set in the environment, for torch and Triton to read.
_ENVIRONMENT: Final = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TRITON_CACHE_AUTOTUNING": "1",
}


class Placeholder:
    """A name of a module that has not been executed; stands for it when called or asked."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._module}.{self._name}, deferred>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # typing looks whether an annotation is of a special kind; that is no use of it.
        if name.startswith("__") and isinstance(sys.modules.get(self._module), DeferredModule):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        # Of a class in a module that was never executed nobody can have made one.
        if isinstance(sys.modules.get(self._module), DeferredModule):
            return False
        return isinstance(instance, self._real())

    def __mro_entries__(self, _: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:
        """Of an annotation that is evaluated, which then says nothing."""
        return Any

    __ror__ = __or__

    def _real(self) -> Any:
        module = importlib.import_module(self._module)
        if isinstance(module, DeferredModule):
            execute(module)
        return getattr(module, self._name)


class DeferredModule(ModuleType):
    """A module that is executed when an attribute of it is asked for."""

    _deferred: "_Loader"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        loader = self._deferred
        if not loader.executing and _waits(self.__name__.rpartition(".")[0]):
            if name in loader.names:
                return Placeholder(self.__name__, name)
            if name in _IDLE.get(self.__name__, ()):
                return _nothing
            if name in _MARKS and self.__name__ == _COMPILER:
                return functools.partial(_mark, name)
        path = self.__dict__.get("__path__")
        if path and importlib.machinery.PathFinder.find_spec(f"{self.__name__}.{name}", path):
            return importlib.import_module(f"{self.__name__}.{name}")
        with loader.lock:
            if name not in self.__dict__ and not loader.executing:
                execute(self)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


class _Loader(importlib.abc.Loader):
    """Makes a module empty and knows how to execute it."""

    def __init__(self, real: Any, names: frozenset[str]) -> None:
        self.real = real
        self.names = names
        self.lock = threading.RLock()
        self.executing = False

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return DeferredModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["_deferred"] = self

    def get_code(self, name: str) -> CodeType | None:
        """As inspect and pkgutil ask for it."""
        code: CodeType | None = self.real.get_code(name)
        return code


def execute(module: DeferredModule) -> None:
    """Executes a module that was handed out empty; one that was executed stays as it is."""
    loader = module._deferred  # noqa: SLF001 (of this module)
    package = sys.modules.get(module.__name__.rpartition(".")[0])
    if isinstance(package, DeferredModule):
        execute(package)
    with loader.lock:
        if type(module) is ModuleType or loader.executing:
            return
        loader.executing = True
        logger.debug("%s is needed after all", module.__name__, stack_info=True)
        try:
            loader.real.exec_module(module)
        finally:
            loader.executing = False
        # Names in it are its own from now on.
        plain: ModuleType = module
        plain.__class__ = ModuleType
    if module.__name__ == _COMPILER:
        _compiler_is_here(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are listed, and gives each to a loader that waits."""

    def __init__(self, modules: Names) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        names = self._modules.get(fullname)
        if names is None:
            return self._after_its_package(fullname, path)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, names)
        return spec

    def _after_its_package(
        self, fullname: str, path: Sequence[str] | None
    ) -> importlib.machinery.ModuleSpec | None:
        """Executes the package of a module that cannot be executed without it."""
        package = sys.modules.get(fullname.rpartition(".")[0])
        if fullname in STANDALONE or not isinstance(package, DeferredModule):
            return None
        execute(package)
        module = sys.modules.get(fullname)
        if module is None or module.__spec__ is None:
            return importlib.machinery.PathFinder.find_spec(fullname, path)
        # The import system takes this very spec, and would execute the module a second time.
        module.__spec__.loader = _There(module, module.__spec__.loader)
        return module.__spec__


class _There(importlib.abc.Loader):
    """Gives a module that its package has imported meanwhile."""

    def __init__(self, module: ModuleType, real: Any) -> None:
        self._module = module
        self._real = real

    def create_module(self, _: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """It was executed; its own loader is in its place again."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._real


def install(*, compiler: bool) -> None:
    """Defers what a text model does not need, from now on; torch's compiler too with `compiler`.

    Modules that are imported already stay as they are.
    """
    modules = {**UNUSED, **(COMPILER if compiler else {})}
    sys.meta_path.insert(0, Finder(modules))
    if compiler:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _defer_compiling()


_marked: list[tuple[str, Callable[..., Any]]] = []


def _waits(package: str) -> bool:
    """Whether a package that is handed out empty still is; others are as they always are."""
    if package not in COMPILER:
        return True
    module = sys.modules.get(package)
    return isinstance(module, DeferredModule) and not module._deferred.executing  # noqa: SLF001


def _nothing(*_: object, **__: object) -> None:
    """Does what is to be done in a module that was never executed."""


def _mark(how: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Notes a function that the compiler is to treat in a special way."""
    _marked.append((how, function))
    return function


def _compiler_is_here(compiler: ModuleType) -> None:
    """What was put off until torch's compiler is there: marks, and vLLM's repairs of it."""
    while _marked:
        how, function = _marked.pop()
        getattr(compiler, how)(function)
    repairs = sys.modules.get(_REPAIRS)
    if isinstance(repairs, DeferredModule):
        execute(repairs)


def _compiler_waits() -> bool:
    return isinstance(sys.modules.get(_COMPILER), DeferredModule | None)


def _defer_compiling() -> None:
    """Lets `torch.compile` and `torch.compiler.disable` of a function wait for its first call."""
    import torch
    import torch.compiler

    torch.compile = waiting(torch.compile)
    torch.compiler.disable = waiting(torch.compiler.disable)


def waiting(decorate: Callable[..., Any]) -> Callable[..., Any]:
    """`decorate`, which may be given a function at once or options first, put off."""

    @functools.wraps(decorate)
    def deferring(function: Any = None, *args: Any, **kwargs: Any) -> Any:
        if function is None:
            return lambda given: deferring(given, *args, **kwargs)
        if not isinstance(function, FunctionType) or not _compiler_waits():
            return decorate(function, *args, **kwargs)
        made: list[Callable[..., Any]] = []

        @functools.wraps(function)
        def call(*call_args: Any, **call_kwargs: Any) -> Any:
            if not made:
                made.append(decorate(function, *args, **kwargs))
            return made[0](*call_args, **call_kwargs)

        return call

    return deferring
