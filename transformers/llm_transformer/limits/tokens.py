"""How many tokens a request may take at most, before a tokenizer has seen it.

The bound is never too small: every token of a byte-level or SentencePiece tokenizer (with byte
fallback) stands for at least one byte of its text, as the tokenizer's Unicode normalisation leaves
it; chat templates add a bounded number of tokens to a message and to a conversation.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from openinference.errors import PayloadTooLarge
from openinference.generation import GenerationRequest, Prompt

# Tokens around a text (begin and end of text, SentencePiece's leading space), and around a message
# beside its own text (role's markers, line ends).
TEXT_EXTRA: Final = 4
MESSAGE_EXTRA: Final = 16
# What tokenizers normalise with; each can lengthen a text, by 3 (NFC) to 11 times (NFKC).
_FORMS: Final = ("NFC", "NFKC")


def prompt_bound(prompts: Iterable[Prompt], *, template_tokens: int) -> int:
    """At least as many tokens as all `prompts` have together.

    `template_tokens` is what the chat template adds to a conversation beside its messages: a
    default system prompt, a date, the answer's beginning.
    """
    bound = 0
    for prompt in prompts:
        bound += _bound(prompt, template_tokens)
    return bound


def fitted(
    request: GenerationRequest,
    prompt_tokens: int,
    *,
    longest: int | None,
    longest_prompt: int | None,
    budget: int | None,
) -> GenerationRequest:
    """`request`, its answers no longer than `longest` tokens each and all within `budget`.

    Where a prompt may have more than `longest_prompt` tokens, the predictor counts, and refuses it.

    `prompt_tokens` is the prompts' bound, `budget` the most that prompts and answers may take
    together; None is no bound. Raises PayloadTooLarge when no answer fits.
    """
    sampling = request.sampling
    most = sampling.max_tokens
    if longest is not None and (most is None or most > longest):
        most = longest
    if budget is not None:
        room = (budget - prompt_tokens) // request.sequences
        if room < 1:
            raise PayloadTooLarge(
                f"the request may take more than the {budget} tokens that your plan allows at once:"
                f" its prompts count as up to {prompt_tokens}, a token for each byte of text"
            )
        if most is None or most > room:
            most = room
    if longest_prompt is not None and prompt_tokens > longest_prompt:
        longest_prompt = min(longest_prompt, sampling.max_prompt_tokens or longest_prompt)
    else:
        longest_prompt = sampling.max_prompt_tokens
    if most == sampling.max_tokens and longest_prompt == sampling.max_prompt_tokens:
        return request
    least = sampling.min_tokens if most is None else min(sampling.min_tokens, most)
    return replace(
        request,
        sampling=replace(
            sampling, max_tokens=most, min_tokens=least, max_prompt_tokens=longest_prompt
        ),
    )


def answer_bound(request: GenerationRequest) -> int:
    """At least as many tokens as the answers to `request` have together.

    pre: request.sampling.max_tokens is not None.
    """
    assert request.sampling.max_tokens is not None
    return request.sampling.max_tokens * request.sequences


def _bound(prompt: Prompt, template_tokens: int) -> int:
    if isinstance(prompt, str):
        return _longest_bytes(prompt) + TEXT_EXTRA
    return template_tokens + sum(
        MESSAGE_EXTRA + sum(_longest_bytes(text) for text in message.values())
        for message in prompt.messages
    )


def _longest_bytes(text: str) -> int:
    if text.isascii():
        return len(text)
    return max(
        len(text.encode()),
        *(
            len(unicodedata.normalize(form, text).encode())
            for form in _FORMS
            if not unicodedata.is_normalized(form, text)
        ),
        0,
    )
