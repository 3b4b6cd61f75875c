"""The servers that are compared, and how each is started.

Each runs as its documentation says for production, without a log line a request, one process.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from pinned import free_port

from openinference import key_file
from openinference.api_keys import new_key

MODEL: Final = "model"
FLOOR: Final = "bare ASGI"
PROXY: Final = "bare proxy"
STOCK_MODEL: Final = "KServe model"
STOCK_REST: Final = "KServe transformer, REST"
STOCK_GRPC: Final = "KServe transformer, gRPC"
OURS: Final = "keepwarm"
LITELLM: Final = "LiteLLM"
HERE: Final = Path(__file__).parent
LITELLM_PYTHON: Final = HERE.parent / "build" / "litellm" / "bin" / "python"
# As many keys as a larger installation has, beside the one that calls.
OTHER_KEYS: Final = 1000
# Every limit that a plan can have, and none in the way.
PLAN: Final = {
    "requests": {"limit": 10**7, "burst": 10**7},
    "requests_per_address": {"limit": 10**7, "burst": 10**7},
    "concurrent": 10**5,
    "tokens": {"limit": 10**9},
    "max_tokens": 4096,
    "max_prompt_tokens": 8000,
}


class Keys:
    """A key, and the files by which ours know it and its plan; LiteLLM knows it as its own."""

    def __init__(self, folder: Path) -> None:
        self.key, kept = new_key(tenant="acme")
        others = (new_key(tenant=f"t{number}")[1] for number in range(OTHER_KEYS))
        self.keys_file, self.plans_file = folder / "keys.yaml", folder / "plans.yaml"
        self.keys_file.write_text(key_file.dump([kept, *others]))
        self.plans_file.write_text(yaml.safe_dump({"plans": {"default": PLAN}}))

    @property
    def flags(self) -> list[str]:
        """The flags by which ours reads both files."""
        return [f"--keys_file={self.keys_file}", f"--plans_file={self.plans_file}"]

    @property
    def header(self) -> str:
        """The request header that shows the key."""
        return f"authorization: Bearer {self.key}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """HOST:PORT of the predictors, and a folder for what a server reads."""

    grpc: str
    http: str
    folder: Path


Arguments = Callable[[Upstreams, Keys, int], list[str]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server: its name in the tables and the arguments that start it on a port."""

    name: str
    arguments: Arguments
    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False


def _floor(_: Upstreams, __: Keys, port: int) -> list[str]:
    return [str(HERE / "bare_asgi.py"), f"--http_port={port}"]


def _proxy(upstreams: Upstreams, _: Keys, port: int) -> list[str]:
    script = str(HERE / "bare_proxy.py")
    return [script, f"--http_port={port}", f"--predictor_host={upstreams.grpc}"]


def _stock_model(_: Upstreams, __: Keys, port: int) -> list[str]:
    return [
        str(HERE / "stock_model.py"),
        *(f"--model_name={MODEL}", f"--http_port={port}", f"--grpc_port={free_port()}"),
        *("--enable_latency_logging=false", "--configure_logging=false"),
    ]


def _stock(protocol: str) -> Arguments:
    def arguments(upstreams: Upstreams, _: Keys, port: int) -> list[str]:
        return [
            str(HERE / "stock_transformer.py"),
            *(f"--model_name={MODEL}", f"--http_port={port}", f"--grpc_port={free_port()}"),
            f"--predictor_protocol={protocol}",
            f"--predictor_host={upstreams.grpc if protocol == 'grpc-v2' else upstreams.http}",
            *("--enable_latency_logging=false", "--configure_logging=false"),
        ]

    return arguments


def keepwarm(
    name: str = OURS,
    *flags: str,
    keys: bool = True,
    limits: bool = True,
    cache: bool = True,
    log_level: str = "warning",
) -> Contender:
    """Our transformer, with everything on or less of it; `flags` are more of its flags.

    What it logs at a level below warning goes nowhere.
    """

    def arguments(upstreams: Upstreams, known: Keys, port: int) -> list[str]:
        return [
            *("-m", "llm_transformer", f"--model_name={MODEL}", f"--log_level={log_level}"),
            *(f"--predictor_host={upstreams.grpc}", f"--http_port={port}", "--host=127.0.0.1"),
            f"--grpc_port={free_port()}",
            f"--keys_file={known.keys_file}" if keys else "--allow_anonymous",
            *([f"--plans_file={known.plans_file}"] if limits else []),
            f"--cache={'tenant' if cache else 'off'}",
            *flags,
        ]

    return Contender(name, arguments, quiet=log_level != "warning")


def _litellm(upstreams: Upstreams, keys: Keys, port: int) -> list[str]:
    config = upstreams.folder / "litellm.yaml"
    parameters = {
        "model": f"hosted_vllm/{MODEL}",
        "api_base": f"http://{upstreams.http}/v1",
        "api_key": "none",
    }
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": keys.key},
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    config.write_text(yaml.safe_dump(settings))
    command = str(LITELLM_PYTHON.parent / "litellm")
    return [command, f"--config={config}", "--host=127.0.0.1", f"--port={port}", "--num_workers=1"]


CONTENDERS: Final = {
    each.name: each
    for each in (
        Contender(FLOOR, _floor),
        Contender(PROXY, _proxy),
        Contender(STOCK_MODEL, _stock_model),
        Contender(STOCK_REST, _stock("v2")),
        Contender(STOCK_GRPC, _stock("grpc-v2")),
        keepwarm(),
        Contender(
            LITELLM,
            _litellm,
            python=str(LITELLM_PYTHON),
            # Its price list comes with the package; nothing is asked of the internet.
            variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        ),
    )
}


def installed(name: str) -> bool:
    """Whether a contender's environment is there (`make bench-hop` sets LiteLLM's up)."""
    return name != LITELLM or LITELLM_PYTHON.exists()
