"""What a request has cost when it ends, however it ends.

What is known is charged as it is; what may have been worked out and is not known, as it was
reserved: a caller who leaves before the end gets nothing for free. What failed through no fault of
the caller's costs what it brought.
"""

from collections.abc import Mapping

from openinference.context import Cached, Reply
from openinference.errors import DeadlineExceeded, ServingError
from openinference.generation import Chunk, GenerationRequest, told


def charge(
    request: GenerationRequest,
    prompt_bound: int,
    last: Mapping[int, Chunk],
    reply: Reply,
    error: BaseException | None,
) -> int:
    """Tokens to charge for; `last` are the last chunks seen, by index.

    `error` is what ended the request before its end, `prompt_bound` its prompts' bound in tokens.
    """
    if reply.cached is Cached.HIT or reply.cached is Cached.COALESCED:
        return 0
    n = request.sampling.n
    seen, answers = told(last, n)
    if error is None or not reply.sent or _is_fault(error):
        return seen + answers
    # With what the engine may have worked out unseen.
    if len({index // n for index in last}) < len(request.prompts):
        seen = prompt_bound
    return seen + (answers if request.stream else _most(request, last))


def _is_fault(error: BaseException) -> bool:
    return isinstance(error, ServingError) and not isinstance(error, DeadlineExceeded)


def _most(request: GenerationRequest, last: Mapping[int, Chunk]) -> int:
    """As many tokens as the answers may have by now: those that have not ended, all they may."""
    tokens = 0
    for index in range(request.sequences):
        chunk = last.get(index)
        if chunk is not None and chunk.finish_reason is not None:
            tokens += chunk.num_output_tokens
        else:
            tokens += request.sampling.max_tokens or 0
    return tokens
