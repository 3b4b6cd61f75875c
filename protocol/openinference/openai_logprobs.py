"""Log probabilities in OpenAI's two shapes: chat's list of tokens, and completions' four lists."""

from collections.abc import Sequence
from typing import Any

from openinference.tokens import Token


def chat(tokens: Sequence[Token]) -> dict[str, Any]:
    """`logprobs` of a chat choice."""
    return {
        "content": [
            {**_member(token), "top_logprobs": [_member(member) for member in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def completions(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """`logprobs` of a completion choice whose text before `tokens` has `offset` characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        # The chosen token is always among them; of two with one text the likelier is told.
        "top_logprobs": [
            {m.text: m.logprob for m in sorted((token, *token.top), key=lambda m: m.logprob)}
            for token in tokens
        ],
        "text_offset": offsets,
    }


def _member(token: Token) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()),
    }
