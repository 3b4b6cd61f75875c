import pytest
from kserve.model_server import parser as kserve_parser
from pydantic import Field

from openinference.server.settings import ENV_PREFIX, ServerSettings


class Settings(ServerSettings):
    fraction: float | None = Field(None, description="A share, in %.", ge=0, le=1)
    warm: bool = Field(False, description="Whether it is warm.")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)


def _settings(*args, parents=()):
    return Settings.from_args(args, parents=parents)


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch):
    assert _settings().http_port == 8080
    monkeypatch.setenv("KEEPWARM_HTTP_PORT", "9001")
    assert _settings().http_port == 9001
    assert _settings("--http_port=9002").http_port == 9002
    assert _settings("--http_port", "8080").http_port == 8080


def test_the_environment_wins_over_the_default_of_kserves_parser(monkeypatch):
    monkeypatch.setenv("KEEPWARM_HTTP_PORT", "9001")
    assert _settings(parents=[kserve_parser]).http_port == 9001
    assert _settings("--http_port=9002", parents=[kserve_parser]).http_port == 9002


@pytest.mark.parametrize(
    ("args", "warm"),
    [
        ([], False),
        (["--warm"], True),
        (["--warm", "true"], True),
        (["--warm=false"], False),
        (["--warm", "--http_port=1"], True),
    ],
)
def test_a_boolean_flag_may_stand_alone(args, warm):
    assert _settings(*args).warm is warm


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--http_port=70000"], "--http_port: Input should be less than or equal to 65535"),
        (["--http_port=web"], "--http_port: Input should be a valid integer"),
        (["--model_name=../x"], "--model_name: String should match pattern"),
        (["--log_level=loud"], "--log_level: String should match pattern"),
        (["--max_timeout_s=0"], "--max_timeout_s: Input should be greater than 0"),
        (["--fraction=2"], "--fraction: Input should be less than or equal to 1"),
        (["--warm=maybe"], "--warm: Input should be a valid boolean"),
        (["--http_port=0", "--grpc_port=0"], "--grpc_port: Input should be greater"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--http=1"], "unrecognized arguments: --http=1"),
    ],
)
def test_a_bad_value_ends_with_status_2_and_names_the_flag(args, told, capsys):
    with pytest.raises(SystemExit) as ended:
        _settings(*args)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_bad_environment_variable_ends_with_status_2(monkeypatch, capsys):
    monkeypatch.setenv("KEEPWARM_HTTP_PORT", "web")
    with pytest.raises(SystemExit):
        _settings()
    assert "--http_port: Input should be a valid integer" in capsys.readouterr().err


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        _settings().http_port = 1


def test_help_tells_every_flag_with_its_variable_and_default(capsys):
    with pytest.raises(SystemExit) as ended:
        _settings("--help", parents=[kserve_parser])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name} " in shown
        assert f"{field.description} Default: {field.default!r}." in shown
        assert f"[{ENV_PREFIX}{name.upper()}]" in shown


def test_flags_of_kserve_without_effect_are_accepted_and_named(capsys):
    settings = _settings("--max_threads=4", "--event-loop=uvloop", parents=[kserve_parser])
    assert settings == _settings()
    err = capsys.readouterr().err
    assert "these flags of KServe have no effect here: --event_loop, --max_threads" in err


def test_nothing_is_said_about_flags_that_were_not_given(capsys):
    _settings("--model_name=m", parents=[kserve_parser])
    assert capsys.readouterr().err == ""


def test_every_flag_of_kserves_parser_is_accepted():
    known = set(Settings.parser([kserve_parser])._option_string_actions)
    assert set(kserve_parser._option_string_actions) <= known


class Listed(ServerSettings):
    names: tuple[str, ...] = Field((), description="Some names.")


def test_a_list_is_a_repeatable_flag_and_a_variable_with_commas(monkeypatch):
    assert Listed.from_args([]).names == ()
    assert Listed.from_args(["--names=a", "--names", "b=c,d"]).names == ("a", "b=c,d")
    monkeypatch.setenv("KEEPWARM_NAMES", "a, b=c")
    assert Listed.from_args([]).names == ("a", "b=c")
    assert Listed.from_args(["--names=z"]).names == ("z",)
