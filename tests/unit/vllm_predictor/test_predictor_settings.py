from pathlib import Path

import pytest
from kserve.model_server import parser as kserve_parser

from vllm_predictor.settings import PredictorSettings


def _settings(*args):
    return PredictorSettings.from_args(args, parents=[kserve_parser])


def test_without_flags_the_model_is_where_kserve_puts_it():
    settings = _settings()
    assert settings.model_dir == Path("/mnt/models")
    assert (settings.http_port, settings.grpc_port) == (8080, 8081)
    assert (settings.max_model_len, settings.enforce_eager) == (None, None)


def test_the_flags_that_kserves_controller_injects_are_read():
    settings = _settings("--model_name=chat", "--http_port=8080", "--workers=1")
    assert (settings.model_name, settings.workers) == ("chat", 1)


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["--model_dir=/models/a"], "model_dir", Path("/models/a")),
        (["--max_model_len=2048"], "max_model_len", 2048),
        (["--max_num_batched_tokens=4096"], "max_num_batched_tokens", 4096),
        (["--enable_prefix_caching=false"], "enable_prefix_caching", False),
        (["--kv_cache_dtype=fp8"], "kv_cache_dtype", "fp8"),
        (["--max_num_queued_reqs=8"], "max_num_queued_reqs", 8),
        (["--enforce_eager"], "enforce_eager", True),
        (["--enforce_eager=false"], "enforce_eager", False),
        (["--dtype=bfloat16"], "dtype", "bfloat16"),
        (["--gpu_memory_utilization=0.5"], "gpu_memory_utilization", 0.5),
    ],
)
def test_a_flag_of_the_engine_is_read(args, name, value):
    assert getattr(_settings(*args), name) == value


@pytest.mark.parametrize(
    "arg",
    [
        "--max_model_len=8",
        "--max_num_seqs=0",
        "--max_num_queued_reqs=0",
        "--max_num_queued_tokens=-1",
        "--dtype=int8",
        "--gpu_memory_utilization=1.1",
        "--gpu_memory_utilization=0",
        "--cpu_kv_cache_gib=0",
        "--engine_log_level=trace",
        "--enforce_eager=maybe",
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(arg, capsys):
    with pytest.raises(SystemExit):
        _settings(arg)
    assert f"{arg.partition('=')[0]}: Input should " in capsys.readouterr().err.replace(
        "String should", "Input should"
    )


def test_a_profile_fills_in_what_was_not_given():
    settings = _settings("--profile=gpu-awq", "--max_num_seqs=8")
    assert (settings.max_model_len, settings.dtype) == (3072, "float16")
    assert settings.max_num_seqs == 8


def test_an_environment_variable_wins_over_the_profile(monkeypatch):
    monkeypatch.setenv("KEEPWARM_MAX_MODEL_LEN", "512")
    assert _settings("--profile=gpu-bf16").max_model_len == 512


@pytest.mark.parametrize("name", ["cpu-demo", "gpu-bf16", "gpu-fp8", "gpu-awq"])
def test_every_profile_is_a_whole_set_of_settings(name):
    settings = _settings(f"--profile={name}")
    assert settings.admitted_sequences >= settings.max_num_seqs
    assert not settings.cuda_graph_sizes or int(settings.cuda_graph_sizes[-1]) == (
        settings.max_num_seqs
    )


def test_an_unknown_profile_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        _settings("--profile=gpu-int2")
    assert "--profile" in capsys.readouterr().err


def test_idle_sleep_without_sleep_mode_is_refused(capsys):
    with pytest.raises(SystemExit):
        _settings("--sleep_after_s=60")
    assert "needs --sleep_mode" in capsys.readouterr().err
