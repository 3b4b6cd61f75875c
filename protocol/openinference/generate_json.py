"""The generate extension's bodies: `/generate` and the events of `/generate_stream`.

Source: OIP generate_rest.yaml; `id` and the shape of stream errors as in Triton's generate
extension.
"""

from typing import Any

from openinference import sampling
from openinference.errors import InvalidInput, shown
from openinference.generation import Chunk, Completion, GenerationRequest
from openinference.text_tensors import DEFAULT_MAX_TOKENS, TIMEOUT

DETAILS = "details"


class GenerateCall:
    """A parsed generate request and what its answer needs to repeat."""

    def __init__(self, model: str, body: dict[str, Any], *, stream: bool) -> None:
        """Raises InvalidInput naming the offending member of `body`."""
        text = body.get("text_input")
        if not isinstance(text, str):
            raise InvalidInput("text_input must be a string")
        request_id = body.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise InvalidInput("id must be a string")
        parameters = body.get("parameters")
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, dict):
            raise InvalidInput("parameters must be an object")
        details = parameters.get(DETAILS, False)
        if not isinstance(details, bool):
            raise InvalidInput(f"parameter 'details' must be true or false, got {shown(details)}")
        chosen = {k: v for k, v in parameters.items() if k not in (DETAILS, TIMEOUT)}
        params = sampling.parse(chosen, default_max_tokens=DEFAULT_MAX_TOKENS)
        if params.n != 1:
            raise InvalidInput("parameter 'n' must be 1 for generate; use infer for more")
        self.request = GenerationRequest(model, (text,), params, stream)
        self.parameters = parameters
        self._id = request_id
        self._details = details

    def answer(self, completion: Completion) -> dict[str, Any]:
        """The body of a `/generate` answer."""
        body = self._body(completion.text)
        if self._details:
            body[DETAILS] = {
                "finish_reason": completion.finish_reason,
                "num_input_tokens": completion.num_input_tokens,
                "num_output_tokens": completion.num_output_tokens,
            }
        return body

    def event(self, chunk: Chunk) -> dict[str, Any]:
        """One event of a `/generate_stream` answer; the last one tells the finish reason."""
        body = self._body(chunk.text)
        details: dict[str, Any] = {}
        if chunk.finish_reason is not None:
            details["finish_reason"] = chunk.finish_reason
        if self._details:
            details["num_input_tokens"] = chunk.num_input_tokens
            details["num_output_tokens"] = chunk.num_output_tokens
        if details:
            body[DETAILS] = details
        return body

    def _body(self, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model_name": self.request.model, "text_output": text}
        if self._id is not None:
            body["id"] = self._id
        return body
