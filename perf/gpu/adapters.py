"""LoRA adapters on our predictor with a real engine: what each name answers, and what a broken one.

    python perf/gpu/adapters.py --model FOLDER --work FOLDER

Makes two random adapters in peft's format and a torn one, serves them beside the base model, and
prints whether each answers differently, whether the base answers as without adapters, and the
statuses of the torn and of an unknown name. FOLDER is a HuggingFace folder (`shape.py` makes one).
"""

import argparse
import json
import os
import shlex
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from engines import NAME, Engine, Server, start_ours

PORT = 18200
RANK, SCALE = 8, 0.05
PROMPT = "17 42 99 03 55"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="adapters and logs go here")
    parser.add_argument("--load_format", default="dummy")
    parser.add_argument("--kv_cache_gib", type=float)
    parser.add_argument("--eager", action="store_true", help="for a machine without a GPU")
    parser.add_argument(
        "--flags", type=shlex.split, default=[], help='more of our predictor: "--a=b --c"'
    )
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    folder = given.work.resolve() / "adapters"
    for seed, name in enumerate(("poet", "clerk")):
        write_adapter(given.model, folder / name, seed)
    write_adapter(given.model, folder / "torn", 3)
    weights = folder / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    engine = Engine(given.model.resolve(), load_format=given.load_format, max_num_seqs=64)
    engine = replace(engine, kv_cache_gib=given.kv_cache_gib, eager=given.eager)
    alone = start_ours(engine, PORT, given.work / "adapters-none.log", *given.flags)
    try:
        alone.first_token_s()
        base = answer(alone, NAME)
    finally:
        alone.end()
    with_adapters = (f"--adapters_dir={folder}", *given.flags)
    server = start_ours(engine, PORT, given.work / "adapters.log", *with_adapters)
    try:
        seconds = server.first_token_s()
        answers = {name: answer(server, name) for name in (NAME, "poet", "clerk", "torn", "nobody")}
        again = answer(server, NAME)
        began = time.monotonic()
        answer(server, "poet")
        warm_s = time.monotonic() - began
    finally:
        server.end()
    texts = [answers[name] for name in (NAME, "poet", "clerk")]
    report = {
        "first_token_s": round(seconds, 1),
        "statuses": {name: status for name, (status, _) in answers.items()},
        "texts_differ": len(set(texts)) == len(texts),
        "base_as_without_adapters": answers[NAME] == base == again,
        "warm_answer_s": round(warm_s, 3),
    }
    print(json.dumps(report))


def answer(server: Server, model: str) -> tuple[int, str]:
    """Status and text of a greedy answer of 16 tokens."""
    parameters = {"max_tokens": 16, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v2/models/{model}/generate",
        json.dumps({"text_input": PROMPT, "parameters": parameters}).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            return reply.status, json.load(reply)["text_output"]
    except urllib.error.HTTPError as refusal:
        return refusal.code, ""


def write_adapter(model: Path, folder: Path, seed: int) -> None:
    """A random adapter of the attention's queries and values, in peft's format."""
    import torch
    from safetensors.torch import save_file

    shape = json.loads((model / "config.json").read_text())
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    rows = {"q_proj": hidden, "v_proj": shape["num_key_value_heads"] * hidden // heads}
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, out in rows.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            down = torch.randn(RANK, hidden, generator=random) * SCALE
            up = torch.randn(out, RANK, generator=random) * SCALE
            tensors |= {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK}
    settings |= {"target_modules": list(rows), "base_model_name_or_path": str(model)}
    settings |= {"bias": "none", "lora_dropout": 0.0, "fan_in_fan_out": False}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
