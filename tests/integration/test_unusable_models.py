"""A predictor whose weights cannot be served ends at once with a sentence that says what to do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "should have"),
        (lambda path: path.unlink(), "holds no weights"),
    ],
    ids=["cut off", "missing"],
)
def test_it_ends_before_the_engine_starts(damage, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    weights = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(8, np.float32)}, weights)
    damage(weights)
    ended = subprocess.run(
        [sys.executable, "-m", "vllm_predictor", f"--model_dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("--model_dir: ")
    assert said in last
    assert "Traceback" not in ended.stderr
