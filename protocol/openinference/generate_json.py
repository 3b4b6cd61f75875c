"""The generate extension's bodies: `/generate` and the events of `/generate_stream`.

Source: OIP generate_rest.yaml; `id` and the shape of stream errors as in Triton's generate
extension.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from openinference import sampling, sse, tokens
from openinference.errors import InvalidInput, shown
from openinference.generation import Chunk, Completion, GenerationRequest
from openinference.text_tensors import DEFAULT_MAX_TOKENS, TIMEOUT

DETAILS: Final = "details"
STREAM: Final = "stream"
LOGPROBS: Final = "logprobs"


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
        if parameters.get(STREAM, stream) is not stream:
            raise InvalidInput(
                f"parameter 'stream' must be {str(stream).lower()} here: generate answers whole, "
                f"generate_stream in pieces; got {shown(parameters[STREAM])}"
            )
        if LOGPROBS in parameters:
            raise InvalidInput("parameter 'logprobs' is not for generate: set details to true")
        chosen = {k: v for k, v in parameters.items() if k not in (DETAILS, STREAM, TIMEOUT)}
        params = sampling.parse(chosen, default_max_tokens=DEFAULT_MAX_TOKENS)
        if params.n != 1:
            raise InvalidInput("parameter 'n' must be 1 for generate; use infer for more")
        if details:
            params = replace(params, logprobs=0)
        self.request = GenerationRequest(model, (text,), params, stream)
        self.parameters = parameters
        self._id = request_id
        self._details = details
        self._text_event = (
            sse.TextEvent(self._body(""), "text_output") if stream and not details else None
        )

    def answer(self, completion: Completion) -> dict[str, Any]:
        """The body of a `/generate` answer."""
        body = self._body(completion.text)
        if self._details:
            body[DETAILS] = {
                "finish_reason": completion.finish_reason,
                "logprobs": [tokens.members(token) for token in completion.tokens],
                "num_input_tokens": completion.num_input_tokens,
                "num_output_tokens": completion.num_output_tokens,
            }
        return body

    def events(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The events of a `/generate_stream` answer that a chunk becomes.

        The last of all says why it ended. With details each event tells of one token, and the last
        of a chunk carries its text.
        """
        if not self._details:
            body = self._body(chunk.text)
            if chunk.finish_reason is not None:
                # Not in details: OIP asks for the token wherever those are.
                body["finish_reason"] = chunk.finish_reason
            yield body
            return
        *before, last = chunk.tokens or (None,)
        generated = chunk.num_output_tokens - len(before)
        for token in before:
            yield self._detailed("", chunk, token, generated)
            generated += 1
        event = self._detailed(chunk.text, chunk, last, generated)
        if chunk.finish_reason is not None:
            event[DETAILS]["finish_reason"] = chunk.finish_reason
        yield event

    def encoded_events(self, chunk: Chunk) -> bytes:
        """`events` as they are sent."""
        if self._text_event is not None and chunk.finish_reason is None:
            return self._text_event.with_text(chunk.text)
        return sse.events(self.events(chunk))

    def _detailed(
        self, text: str, chunk: Chunk, token: tokens.Token | None, generated: int
    ) -> dict[str, Any]:
        details: dict[str, Any] = {
            "num_input_tokens": chunk.num_input_tokens,
            "num_output_tokens": generated,
        }
        if token is not None:
            details["token"] = tokens.members(token)
        return {**self._body(text), DETAILS: details}

    def _body(self, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model_name": self.request.model, "text_output": text}
        if self._id is not None:
            body["id"] = self._id
        return body
