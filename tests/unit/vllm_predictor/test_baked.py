"""A compile cache serves exactly the start that it was baked for."""

import json
from pathlib import Path

import pytest

from vllm_predictor import baked
from vllm_predictor.settings import PredictorSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 64}')
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def settings(model: Path, *args: str) -> PredictorSettings:
    return PredictorSettings.from_args([f"--model_dir={model}", "--profile=gpu-bf16", *args])


def bake(made_for: PredictorSettings, cache: Path) -> None:
    baked.Baked(
        baked.wanted(made_for),
        baked.model_id(made_for.model_dir),
        baked.versions(),
        "NVIDIA H200",
        51.5,
    ).write(cache)


def test_the_same_start_is_taken_and_gets_the_size_that_was_measured(
    model: Path, cache: Path
) -> None:
    bake(settings(model), cache)
    now = settings(model, "--log_level=debug", "--http_port=9000", "--max_num_queued_reqs=7")
    assert baked.checked(now, cache).kv_cache_gib == 51.5


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--max_num_seqs=8", "max_num_seqs was 256 and is 8"),
        ("--cuda_graph_sizes=4", "cuda_graph_sizes was"),
        ("--kv_cache_dtype=fp8", "kv_cache_dtype was 'auto' and is 'fp8'"),
        ("--kv_cache_gib=4", "kv_cache_gib was 51.5 and is 4"),
        ("--sleep_mode", "sleep_mode was False and is True"),
    ],
)
def test_another_setting_is_refused_by_name(
    model: Path, cache: Path, flag: str, named: str
) -> None:
    bake(settings(model), cache)
    with pytest.raises(baked.StaleBake, match=named) as refused:
        baked.checked(settings(model, flag), cache)
    assert "python -m vllm_predictor.bake" in str(refused.value)


def test_another_models_shape_is_refused(model: Path, cache: Path) -> None:
    bake(settings(model), cache)
    (model / "config.json").write_text('{"hidden_size": 128}')
    with pytest.raises(baked.StaleBake, match="model was"):
        baked.checked(settings(model), cache)


def test_another_version_of_what_compiles_is_refused(model: Path, cache: Path) -> None:
    bake(settings(model), cache)
    manifest = json.loads((cache / baked.MANIFEST).read_text())
    manifest["versions"]["torch"] = "1.0"
    (cache / baked.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(baked.StaleBake, match=r"torch was '1\.0'"):
        baked.checked(settings(model), cache)


@pytest.mark.parametrize("text", [None, "", "[]", '{"settings": {}}'])
def test_a_folder_without_a_whole_manifest_is_refused(
    model: Path, cache: Path, text: str | None
) -> None:
    if text is not None:
        (cache / baked.MANIFEST).write_text(text)
    with pytest.raises(baked.StaleBake, match=r"no readable baked\.json"):
        baked.checked(settings(model), cache)


def test_another_gpu_is_refused(model: Path, cache: Path) -> None:
    bake(settings(model), cache)
    found = baked.checked(settings(model), cache)
    baked.check_device(found, "NVIDIA H200")
    with pytest.raises(baked.StaleBake, match="NVIDIA L4"):
        baked.check_device(found, "NVIDIA L4")
