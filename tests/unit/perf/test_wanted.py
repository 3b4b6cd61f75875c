"""Whether a target is met is decided by its figure's median."""

import cache_hit
import contenders
import hop
import hop_report
import idle_streams
import pytest
import streams
from wanted import TARGETS, Target, judged, read

MORE = Target("more requests", "requests", least=5)
LESS = Target("less memory", "memory", most=400)

CASES = {
    "above its least": (MORE, [4.0, 5.5, 6.0], "met"),
    "at its least": (MORE, [5.0], "met"),
    "below its least": (MORE, [4.9, 4.9, 9.0], "missed"),
    "below its most": (LESS, [350.0, 390.0, 500.0], "met"),
    "above its most": (LESS, [401.0], "missed"),
    "no right answer": (MORE, [float("nan")], "missed"),
    "no measurement": (MORE, [], "not measured"),
}


@pytest.mark.parametrize(("target", "values", "verdict"), CASES.values(), ids=CASES)
def test_the_median_decides(target, values, verdict):
    ((says, _, _, told),) = judged({target.figure: values}, [target])
    assert (says, told) == (target.says, verdict)


def test_tables_are_read_beside_the_experiments_results(tmp_path, capsys):
    (tmp_path / "hop.json").write_text('{"where": "here", "figures": {"requests": [5, 6]}}')
    (tmp_path / "stages.json").write_text('{"where": "there"}')
    (tmp_path / "peak.json").write_text('{"name": "peak", "rows": [], "environment": {}}')
    assert read(tmp_path) == {"requests": [5, 6]}
    assert capsys.readouterr().out.splitlines() == ["hop: here", "stages: there"]


def test_every_target_is_of_a_figure_of_its_own_and_has_one_bound():
    assert len({target.figure for target in TARGETS}) == len(TARGETS)
    assert all((target.least is None) != (target.most is None) for target in TARGETS)


def test_every_target_is_of_a_figure_that_a_table_tells():
    hops = [
        hop_report.HopSample(protocol, server, c, *range(10, 19), 0)
        for protocol, servers in hop.SERVERS.items()
        for server in servers
        for c in hop.CONNECTIONS
    ]
    streamed = [
        streams.StreamSample(load, server, *range(10, 17), 0)
        for load, servers in streams.LOADS.items()
        for server in servers
    ]
    hit = cache_hit.Sample(1.0, 1.0, 0)
    told = {
        **hop_report.figures(hops),
        **streams.figures(streamed),
        **cache_hit.figures({name: [(hit, hit)] for name in cache_hit.REQUESTS}),
        **idle_streams.figures([_idle(contenders.OURS), _idle(contenders.PROXY)]),
    }
    assert {target.figure for target in TARGETS} <= set(told)


def _idle(server):
    return idle_streams.IdleSample(server, idle_streams.STREAMS, 150, 390, 200, 0.1, 500, 0)
