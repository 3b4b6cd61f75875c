"""What a request has cost when it ends, however it ends.

What is known is charged as it is; what may have been worked out and is not known, as it was
reserved: a caller who leaves before the end gets nothing for free. What failed through no fault of
the caller's costs what it brought.
"""

from openinference.context import Cached, Reply
from openinference.errors import DeadlineExceeded, ServingError
from openinference.generation import Chunk, GenerationRequest


class Used:
    """Counts one request's chunks as they pass."""

    def __init__(self, request: GenerationRequest, prompt_bound: int) -> None:
        self._request = request
        self._prompt_bound = prompt_bound
        self._prompts: dict[int, int] = {}
        self._answers: dict[int, int] = {}
        self._ended: set[int] = set()

    def add(self, chunk: Chunk) -> None:
        """A chunk has passed."""
        self._answers[chunk.index] = chunk.num_output_tokens
        if chunk.finish_reason is not None:
            self._ended.add(chunk.index)
        prompt = chunk.index // self._request.sampling.n
        if prompt not in self._prompts:
            self._prompts[prompt] = chunk.num_input_tokens

    def tokens(self, reply: Reply, error: BaseException | None) -> int:
        """What to charge for; `error` is what ended the request before its end."""
        if reply.cached in (Cached.HIT, Cached.COALESCED):
            return 0
        seen = sum(self._prompts.values()) + sum(self._answers.values())
        if error is None or not reply.sent:
            return seen
        if isinstance(error, ServingError) and not isinstance(error, DeadlineExceeded):
            return seen
        return self._most()

    def _most(self) -> int:
        """With what the engine may have worked out unseen."""
        request = self._request
        known = len(self._prompts) == len(request.prompts)
        tokens = sum(self._prompts.values()) if known else self._prompt_bound
        for index in range(request.sequences):
            if index in self._ended or request.stream:
                tokens += self._answers.get(index, 0)
            else:
                tokens += request.sampling.max_tokens or 0
        return tokens
