"""`keepwarm warmpool plan`: replicas by hour, replica-hours and money."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from keepwarm.cli import app
from keepwarm.warmpool.api import Spec
from keepwarm.warmpool.plan import Plan

OFFICE = {"name": "office", "start": "08:00", "end": "18:00", "replicas": 3}
FILE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: not-this}
---
apiVersion: autoscaling.keepwarm.dev/v1alpha1
kind: WarmPool
metadata: {name: chat}
spec:
  target: {inferenceService: chat}
  timeZone: Europe/Berlin
  lead: {fixed: 10m}
  windows: [{name: office, start: "08:00", end: "18:00", replicas: 3}]
  price: {perReplicaHour: 2, currency: EUR}
"""


def plan(start="2026-11-25T00:00:00Z", days=1, lead=0, **spec) -> Plan:
    made = Spec.of({"target": {"inferenceService": "chat"}, **spec})
    begin = datetime.fromisoformat(start)
    return Plan.of(made, timedelta(minutes=lead), begin, days)


def test_hours_show_the_most_and_sums_are_exact():
    made = plan(lead=15, windows=[OFFICE])
    hours = made.by_hour()[date(2026, 11, 25)]
    assert [hours[hour] for hour in (6, 7, 8, 17, 18)] == [0, 3, 3, 3, 0]
    assert made.replica_hours == pytest.approx(3 * 10.25)


def test_a_day_on_which_clocks_change_has_its_own_hours():
    spring = plan("2026-03-28T23:00:00Z", windows=[OFFICE], timeZone="Europe/Berlin", floor=1)
    hours = spring.by_hour()[date(2026, 3, 29)]
    assert 2 not in hours
    assert len(hours) == 23
    autumn = plan("2026-10-24T22:00:00Z", timeZone="Europe/Berlin", floor=1)
    assert autumn.replica_hours == 24
    # Two of the 24 hours from midnight are 02:00.
    assert set(autumn.by_hour()[date(2026, 10, 25)]) == set(range(23))


@given(st.integers(0, 23), st.integers(0, 23), st.integers(0, 5), st.integers(1, 9))
def test_replica_hours_are_between_the_floor_and_the_most(start, end, floor, replicas):
    window = {
        "name": "w",
        "start": f"{start:02}:30",
        "end": f"{end:02}:00",
        "replicas": replicas,
    }
    made = plan(days=7, floor=floor, windows=[window])
    assert 7 * 24 * floor <= made.replica_hours <= 7 * 24 * made.most


def test_the_command_prints_a_week(tmp_path):
    file = tmp_path / "pools.yaml"
    file.write_text(FILE)
    done = CliRunner().invoke(
        app, ["warmpool", "plan", str(file), "--start", "2026-11-23", "--days", "7"]
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "chat: predictor of chat, Europe/Berlin, asked for 10m ahead"
    assert lines[3].split() == ["Mon", "23", "Nov", *"." * 7, *"3" * 11, *"." * 6]
    assert "kept: 213.5 replica-hours, 427.00 EUR" in lines
    assert "58% less than always 3: 504.0, 1008.00 EUR" in lines
    assert "Mon 23 Nov 07:50     3  office (lead)" in lines


def test_the_command_gives_data(tmp_path):
    file = tmp_path / "pools.yaml"
    file.write_text(FILE)
    done = CliRunner().invoke(
        app, ["warmpool", "plan", str(file), "--start", "2026-11-23", "--days", "1", "--json"]
    )
    (found,) = json.loads(done.output)
    assert (found["replicaHours"], found["cost"]) == (30.5, 61)
    assert found["start"] == datetime(2026, 11, 22, 23, tzinfo=UTC).isoformat()
    assert found["changes"][1]["sources"] == ["office (lead)"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("kind: ConfigMap", "has no WarmPool"),
        ("a: [", "is no YAML"),
        (FILE.replace("v1alpha1", "v9"), "apiVersion must be"),
        (FILE.replace("{name: chat}", "{}"), "has no metadata.name"),
        (FILE.replace('"18:00"', '"25:00"'), "spec.windows.0.end"),
    ],
)
def test_what_cannot_be_planned_is_said(tmp_path, content, said):
    file = tmp_path / "pools.yaml"
    file.write_text(content)
    done = CliRunner().invoke(app, ["warmpool", "plan", str(file)])
    assert done.exit_code == 2
    assert said in done.stderr
