"""The judge of the chaos test lets nothing pass that callers must not see."""

from dataclasses import replace

import pytest
from callers import Call
from fixed_predictor import token
from plan import Kind, Target, faults
from verdict import Death, Outcome, charge, outcome

PROMPT, TOKENS = "main 1 word", 3
PIECES = [token(PROMPT, number) for number in range(TOKENS)]
GOOD = Call(
    "generate_stream",
    "transformer",
    PROMPT,
    TOKENS,
    "main",
    began=10,
    ended=11,
    status="200",
    texts=PIECES,
    whole=True,
)
LOST = "the predictor of model 'model' was lost during the answer"


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({}, Outcome.ANSWERED),
        ({"status": "OK", "kind": "grpc_stream"}, Outcome.ANSWERED),
        ({"texts": PIECES[:2], "whole": False, "error": LOST}, Outcome.BROKEN_OFF),
        ({"texts": [], "error": LOST, "status": "503", "retry_after": "1"}, Outcome.REFUSED),
        ({"texts": [], "error": LOST, "status": "504"}, Outcome.LATE),
        ({"texts": PIECES[:1], "whole": False, "left": True, "status": ""}, Outcome.LEFT),
        ({"texts": PIECES[:1], "whole": False, "status": "", "ended": 20.5}, Outcome.LOST),
    ],
)
def test_what_may_happen(changes, ended):
    assert outcome(replace(GOOD, **changes), [Death(20, 20.2)]) is ended


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hung": True}, "hung"),
        ({"texts": [*PIECES[:2], " other"]}, "wrong text"),
        ({"texts": [*PIECES, PIECES[0]]}, "wrong text"),
        ({"texts": [PIECES[1]], "left": True}, "wrong text"),
        ({"texts": PIECES[:2]}, "cut short without an error"),
        ({"whole": False}, "cut short without an error"),
        ({"texts": PIECES[:1], "whole": False, "status": ""}, "though nobody killed it"),
        ({"status": "", "texts": [], "began": 20.5, "ended": 20.6}, "though nobody killed it"),
        ({"status": "500", "error": "internal error", "texts": []}, "says nothing"),
        ({"status": "500", "error": "something else went wrong", "texts": []}, "something else"),
        ({"status": "503", "error": LOST, "texts": []}, "no time to come"),
        ({"status": "200", "kind": "infer", "error": LOST, "texts": []}, LOST),
    ],
)
def test_what_must_not_happen(changes, problem):
    ended = outcome(replace(GOOD, **changes), [Death(20, 20.2)])
    assert not isinstance(ended, Outcome)
    assert problem in ended


@pytest.mark.parametrize(
    ("changes", "ended", "tokens"),
    [
        ({}, Outcome.ANSWERED, (6, 6)),
        ({"popular": True}, Outcome.ANSWERED, (0, 6)),
        ({"texts": []}, Outcome.REFUSED, (0, 0)),
        ({"texts": PIECES[:2], "error": LOST}, Outcome.BROKEN_OFF, (5, 5)),
        ({"texts": [], "error": LOST}, Outcome.BROKEN_OFF, (0, 0)),
        ({"texts": PIECES[:2]}, Outcome.LEFT, (5, 18)),
        ({"texts": []}, Outcome.LATE, (0, 18)),
    ],
)
def test_what_each_end_may_cost(changes, ended, tokens):
    assert charge(replace(GOOD, **changes), ended) == tokens


def test_a_seed_is_a_plan_and_a_long_one_holds_every_fault():
    planned = list(faults(7, 200))
    assert planned == list(faults(7, 200))
    assert planned != list(faults(8, 200))
    assert {(fault.target, fault.kind) for fault in planned} == {
        (target, kind) for target in Target for kind in Kind
    }
