"""KServe's own transformer, as its documentation tells to write one: a Model that forwards.

Flags are KServe's (`--model_name`, `--http_port`, `--predictor_host`, `--predictor_protocol`).
Its logs are off, which spares it a fifth of its time: nothing at INFO is formatted or written.
"""

import logging
import sys

# As in a transformer's image: KServe loads vLLM where it finds it, which costs 750 MiB.
sys.modules["vllm"] = None  # type: ignore[assignment]

import kserve  # noqa: E402
from kserve import model_server  # noqa: E402


class Forward(kserve.Model):  # type: ignore[misc]  # kserve is not typed
    """`predict` is KServe's: it calls the predictor and returns what that answers."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True


def main() -> None:
    """The command."""
    logging.disable(logging.INFO)
    model_server.ModelServer(enable_latency_logging=False).start(
        [Forward(model_server.args.model_name)]
    )


if __name__ == "__main__":
    main()
