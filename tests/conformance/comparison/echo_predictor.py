"""Our predictor's own server with a model that answers each text with itself, in place of vLLM.

Everything but the engine is the real one's. A token is a word with the space before it, certain, so
that its log probability is 0; what would bound the text is refused, for an echo cannot keep to it.
"""

import json
import re
import sys
import types
from pathlib import Path
from tempfile import TemporaryDirectory

from openinference.errors import InvalidInput
from openinference.generation import Chunk, Conversation, FinishReason
from openinference.tokens import LEAST_LOGPROB, Token

WORD = re.compile(r"\s*\S+|\s+")


class EchoEngine:
    """Has the interface of vllm_predictor.engine.Engine."""

    is_dead = False

    def shutdown(self):
        """Nothing runs outside of the requests."""

    async def generate(self, request, request_id, **options):
        if request.sampling.structured_outputs is not None:
            raise InvalidInput("structured_outputs: an echo cannot be bounded")
        for index in range(request.sequences):
            prompt = request.prompts[index // request.sampling.n]
            if isinstance(prompt, Conversation):
                prompt = prompt.messages[-1]["content"]
            words = WORD.findall(prompt) or [""]
            for chunk in _chunks(request, index, words):
                yield chunk


def _chunks(request, index, words):
    most = request.sampling.max_tokens or len(words)
    said, reason = words[:most], FinishReason.EOS if len(words) <= most else FinishReason.LENGTH
    tokens = _tokens(said, request.sampling.logprobs)
    if not request.stream:
        yield Chunk(index, "".join(said), len(words), len(said), reason, tokens)
        return
    for number, word in enumerate(said, start=1):
        end = reason if number == len(said) else None
        yield Chunk(index, word, len(words), number, end, tokens[number - 1 : number])


def _tokens(words, most):
    if most is None:
        return ()
    rivals = [Token(number, f" rival{number}", LEAST_LOGPROB) for number in range(1, 21)]
    return tuple(Token(0, word, 0.0, top=(Token(0, word, 0.0), *rivals)[:most]) for word in words)


def main():
    module = types.ModuleType("vllm_predictor.engine")
    vars(module)["build"] = lambda settings, on_config, **_: (on_config(), EchoEngine())[1]
    sys.modules["vllm_predictor.engine"] = module
    from vllm_predictor import server

    with TemporaryDirectory() as folder:
        # What the predictor looks at before it starts; an echo has no weights.
        (Path(folder) / "config.json").write_text(json.dumps({"architectures": ["Echo"]}))
        sys.argv[1:] = [f"--model_dir={folder}", "--load_format=dummy", *sys.argv[1:]]
        server.main()


if __name__ == "__main__":
    main()
