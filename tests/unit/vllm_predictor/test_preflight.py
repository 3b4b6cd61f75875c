"""A folder that cannot be served is refused with one sentence that says what to change."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vllm_predictor import preflight
from vllm_predictor.settings import PredictorSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    save_file({"a": np.zeros(8, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def check(model: Path, *args: str, memory_bytes: int | None = None) -> None:
    preflight.check(PredictorSettings.from_args([f"--model_dir={model}", *args]), memory_bytes)


def refusal(model: Path, **memory: int) -> str:
    with pytest.raises(preflight.UnusableModel) as refused:
        check(model, **memory)
    return str(refused.value)


def test_a_whole_model_passes(model: Path) -> None:
    check(model, memory_bytes=preflight.host_memory_bytes())


def test_a_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[]", "no architectures"), ("{}", "no architectures")]
)
def test_a_broken_configuration_is_named(model: Path, text: str, said: str) -> None:
    (model / "config.json").write_text(text)
    assert said in refusal(model)


def test_a_folder_without_weights_is_named(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "holds no weights" in refusal(model)
    check(model, "--load_format=dummy")


def test_a_missing_shard_is_named(model: Path) -> None:
    shards = {"a": "model.safetensors", "b": "model-2.safetensors"}
    (model / preflight.INDEX).write_text(json.dumps({"weight_map": shards}))
    assert "lacks 1 of 2 weight files" in refusal(model)
    assert "model-2.safetensors" in refusal(model)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(model: Path, text: str) -> None:
    (model / preflight.INDEX).write_text(text)
    assert "not an index of weights" in refusal(model)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_the_wrong_length_is_named_with_both_lengths(model: Path, change: int) -> None:
    path = model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"\0")
    said = refusal(model)
    assert f"has {len(data) + change} bytes and should have {len(data)}" in said


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 4, struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"[]", b"\x02" + b"\0" * 90],
)
def test_any_other_bytes_are_named_corrupt(model: Path, data: bytes) -> None:
    (model / "model.safetensors").write_bytes(data)
    assert "copy it again" in refusal(model)


def test_integer_weights_without_a_quantization_are_named(model: Path) -> None:
    save_file({"a": np.zeros(8, np.int32)}, model / "model.safetensors")
    assert "the weights are I32" in refusal(model)
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}
    (model / "config.json").write_text(json.dumps(config))
    check(model)


def test_weights_that_memory_cannot_hold_are_named_with_both_sizes(model: Path) -> None:
    assert "of memory are there to hold them" in refusal(model, memory_bytes=16)
