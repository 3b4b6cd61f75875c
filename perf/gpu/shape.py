"""Writes a model folder of Llama-3-8B's shape: configuration, a tokenizer, weights if asked for.

    python perf/gpu/shape.py FOLDER [--weights] [--layers 32]

Every token of the tokenizer has a text of its own, so a server that leaves out events without text
leaves out none. Weights are random (16 GB in bfloat16, written in seconds on a GPU): speed and
memory are those of a real model, answers are nonsense.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 4096, 14336, 32, 8, 128256
SPREAD = 0.02


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--layers", type=int, default=32)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "config.json").write_text(json.dumps(config(given.layers)))
    write_tokenizer(given.folder)
    if given.weights:
        write_weights(given.folder, given.layers)


def config(layers: int) -> dict[str, object]:
    """What transformers reads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write_tokenizer(folder: Path) -> None:
    """Numbers are tokens of two digits each; all other tokens are words."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    special = ["<unk>", "<s>", "</s>"]
    words = special + [f"{n:02}" for n in range(100)] + [str(n) for n in range(10)]
    words += [f"w{n}" for n in range(VOCABULARY - len(words))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 (no secret)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\d{1,2}"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    settings |= {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    settings["chat_template"] = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_weights(folder: Path, layers: int) -> None:
    """A file a layer, as checkpoints are split, and their index."""
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    index: dict[str, str] = {}
    for number in range(layers + 1):
        name = f"model-{number:03}.safetensors"
        made = dict(_outer(device) if number == layers else _layer(number, device))
        save_file({key: value.cpu() for key, value in made.items()}, str(folder / name))
        index |= dict.fromkeys(made, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _random(device: str, *shape: int) -> "torch.Tensor":
    import torch

    return torch.randn(*shape, device=device, dtype=torch.bfloat16) * SPREAD


def _layer(number: int, device: str) -> "Iterator[tuple[str, torch.Tensor]]":
    import torch

    prefix, head = f"model.layers.{number}", HIDDEN // HEADS
    rows = {"q_proj": HEADS * head, "k_proj": KV_HEADS * head, "v_proj": KV_HEADS * head}
    for name, count in rows.items():
        yield f"{prefix}.self_attn.{name}.weight", _random(device, count, HIDDEN)
    yield f"{prefix}.self_attn.o_proj.weight", _random(device, HIDDEN, HEADS * head)
    for name in ("gate_proj", "up_proj"):
        yield f"{prefix}.mlp.{name}.weight", _random(device, INTERMEDIATE, HIDDEN)
    yield f"{prefix}.mlp.down_proj.weight", _random(device, HIDDEN, INTERMEDIATE)
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", torch.ones(HIDDEN, device=device, dtype=torch.bfloat16)


def _outer(device: str) -> "Iterator[tuple[str, torch.Tensor]]":
    import torch

    yield "model.embed_tokens.weight", _random(device, VOCABULARY, HIDDEN)
    yield "lm_head.weight", _random(device, VOCABULARY, HIDDEN)
    yield "model.norm.weight", torch.ones(HIDDEN, device=device, dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
