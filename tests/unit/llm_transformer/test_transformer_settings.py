import pytest
from kserve.model_server import parser as kserve_parser

from llm_transformer.models import model_table
from llm_transformer.settings import TransformerSettings


def _settings(*args):
    return TransformerSettings.from_args(args, parents=[kserve_parser])


def _target(settings):
    (predictor,) = model_table(settings).predictors
    return predictor.target


def test_the_flags_that_kserves_controller_injects_are_read():
    settings = _settings(
        "--model_name", "chat", "--predictor_host", "chat-predictor.ns", "--http_port=8080",
        "--workers", "1",
    )  # fmt: skip
    assert settings.model_name == "chat"
    assert _target(settings) == "chat-predictor.ns:80"
    assert (settings.http_port, settings.workers) == (8080, 1)


@pytest.mark.parametrize(
    ("args", "target"),
    [
        (["--predictor_host=p"], "p:80"),
        (["--predictor_host=p:8081"], "p:8081"),
        (["--predictor_host=p", "--predictor_use_ssl=true"], "p:443"),
        (["--predictor_host=p", "--predictor_use_ssl"], "p:443"),
        (["--predictor_host=p:8081", "--predictor_use_ssl"], "p:8081"),
    ],
)
def test_the_port_of_the_predictor_follows_from_tls_unless_given(args, target):
    assert _target(_settings(*args)) == target


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "--predictor_host is required"),
        (["--predictor_host=http://p"], "--predictor_host: String should match pattern"),
        (["--predictor_host=p:"], "--predictor_host: String should match pattern"),
        (
            ["--predictor_host=p", "--predictor_protocol=v1"],
            "--predictor_protocol: Input should be",
        ),
        (["--predictor_host=p", "--predictor_request_timeout_seconds=0"], "greater than 0"),
        (
            ["--predictor_host=p", "--cache_ttl_least_s=601"],
            "error: --cache_ttl_least_s must be at most --cache_ttl_most_s\n",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(args, told, capsys):
    with pytest.raises(SystemExit):
        _settings(*args)
    assert told in capsys.readouterr().err


def test_the_password_of_redis_is_not_told():
    settings = _settings("--predictor_host=p", "--redis_url=redis://:hush@r")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("args", "check"), [([], False), (["--enable_predictor_health_check"], True)]
)
def test_the_health_check_of_the_predictor_is_off_unless_asked_for(args, check):
    assert _settings("--predictor_host=p", *args).enable_predictor_health_check is check
