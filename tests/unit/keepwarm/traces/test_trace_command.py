"""`keepwarm trace` as its user calls it."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from keepwarm.cli import app

OFFICE = Path(__file__).parents[3] / "data" / "traces" / "servegen-office-14d.jsonl.gz"


def trace(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["trace", *arguments])


def test_describe_prints_figures_and_warns_of_odd_silences() -> None:
    done = trace("describe", str(OFFICE))
    assert done.exit_code == 0
    assert "153,376 in 14 d" in done.stdout
    assert "1,305 over 1 min" in done.stdout
    assert "warning: no request for 4.0 h" in done.stderr


def test_describe_gives_json_for_a_program() -> None:
    done = trace("describe", str(OFFICE), "--json", "--from", "1d", "--to", "2d")
    found = json.loads(done.stdout)
    assert found["duration_s"] == pytest.approx(86_400)
    assert found["week_rps"][0] == [None] * 24


def test_describe_writes_a_page_that_fetches_nothing(tmp_path: Path) -> None:
    page = tmp_path / "trace.html"
    assert trace("describe", str(OFFICE), "--html", str(page)).exit_code == 0
    text = page.read_text()
    assert text.count("<svg ") == 4
    assert "<script" not in text
    assert 'src="http' not in text
    assert "default-src 'none'" in text


def test_generate_and_convert_pass_a_trace_on(tmp_path: Path) -> None:
    made, again = tmp_path / "made.jsonl.gz", tmp_path / "again.jsonl"
    done = trace("generate", "code-bursty", "--days", "0.02", "--out", str(made), "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert trace("convert", str(made), "--out", str(again)).exit_code == 0
    assert gzip.decompress(made.read_bytes()) == again.read_bytes()
    assert json.loads(again.read_text().splitlines()[0])["timestamp"] >= 1_767_571_200_000


def test_presets_are_listed() -> None:
    assert "long-tail-idle" in trace("presets").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("describe", "none.jsonl"), "none.jsonl: it cannot be read: No such file"),
        (("describe", str(OFFICE), "--time-zone", "Mars/Base"), "no IANA time zone"),
        (("describe", str(OFFICE), "--from", "soon"), "not a duration"),
        (("convert", str(OFFICE), "--out", "/none/x"), "cannot be written"),
        (("fit-latency", "none.jsonl"), "cannot be read"),
        (
            ("generate", "cron-batch", "--days", "0.001", "--rps", "0.00001", "--out", "-"),
            "holds no request",
        ),
    ],
)
def test_what_cannot_be_done_is_told_with_status_2(arguments: tuple[str, ...], reason: str) -> None:
    done = trace(*arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
