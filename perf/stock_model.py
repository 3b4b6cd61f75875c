"""KServe's own model server, as its documentation tells to write a model: it answers V2 itself.

Flags are KServe's (`--model_name`, `--http_port`). Its logs are off, as in `stock_transformer.py`.
"""

import logging
import sys

# As in an image without an engine: KServe loads vLLM where it finds it, which costs 750 MiB.
sys.modules["vllm"] = None  # type: ignore[assignment]

import kserve  # noqa: E402
from canned import ANSWER  # noqa: E402
from kserve import model_server  # noqa: E402


class Answering(kserve.Model):  # type: ignore[misc]  # kserve is not typed
    """`predict` answers every prompt with the same text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(
        self, payload: kserve.InferRequest, headers: object = None, response_headers: object = None
    ) -> kserve.InferResponse:
        output = kserve.InferOutput("text_output", [1], "BYTES", [ANSWER])
        return kserve.InferResponse(payload.id, self.name, [output])


def main() -> None:
    """The command."""
    logging.disable(logging.INFO)
    model_server.ModelServer(enable_latency_logging=False).start(
        [Answering(model_server.args.model_name)]
    )


if __name__ == "__main__":
    main()
