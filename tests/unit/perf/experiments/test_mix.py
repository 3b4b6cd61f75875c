"""The load of the experiments: the mix, and a hit ratio that is chosen."""

from collections import Counter

import protocols
import pytest
from driver import encode
from mix import MEAN_TOKENS, Prompts
from schedule import MIX


def _requests(prompts, hit_ratio, *, rate=500.0, seconds=20.0, stream_share=0.0):
    return list(prompts.requests(rate, seconds, hit_ratio=hit_ratio, stream_share=stream_share))


@pytest.mark.parametrize("hit_ratio", [0.0, 0.5, 0.98, 1.0])
def test_the_share_of_prompts_that_a_warm_cache_knows_is_the_one_asked_for(hit_ratio):
    prompts = Prompts(1)
    warm = {request.planned.prompt for request in prompts.hot}
    asked = [request.planned.prompt for request in _requests(prompts, hit_ratio)]
    known = sum(prompt in warm for prompt in asked) / len(asked)
    assert known == pytest.approx(hit_ratio, abs=0.02)


def test_a_prompt_that_no_cache_knows_is_asked_once():
    prompts = Prompts(1)
    runs = [_requests(prompts, 0.5), _requests(prompts, 0.5)]
    warm = {request.planned.prompt for request in prompts.hot}
    fresh = [
        request.planned.prompt
        for run in runs
        for request in run
        if request.planned.prompt not in warm
    ]
    assert len(fresh) > 4000
    assert len(set(fresh)) == len(fresh)


def test_a_hot_prompt_is_the_same_request_whenever_it_is_asked():
    prompts = Prompts(1)
    warm = {request.planned.prompt: encode(request, v2=True) for request in prompts.hot}
    for request in _requests(prompts, 1.0, seconds=4.0):
        assert encode(request, v2=True) == warm[request.planned.prompt]


def test_the_first_hot_prompts_are_asked_most():
    prompts = Prompts(1)
    asked = Counter(request.planned.prompt for request in _requests(prompts, 1.0))
    assert asked["1hot30r0"] > 1.5 * asked["1hot30r1"] > 2 * asked["1hot30r9"] > 0


def test_short_medium_and_long_requests_come_as_three_two_and_one():
    asked = Counter(
        (request.planned.prompt_tokens, request.planned.output_tokens)
        for request in _requests(Prompts(2), 0.5)
    )
    for shape in MIX:
        share = asked[shape.prompt_tokens, shape.output_tokens] / asked.total()
        assert share == pytest.approx(shape.weight / 6, abs=0.02)
    assert pytest.approx(550 / 6) == MEAN_TOKENS


def test_in_turn_the_mix_is_exact():
    turns = Prompts(2).in_turn(12)
    assert [planned.output_tokens for planned in turns] == [50, 50, 50, 100, 100, 200] * 2
    assert len({planned.prompt for planned in turns}) == 12


def test_every_stack_is_asked_for_as_many_tokens_by_its_own_protocol():
    import orjson

    (request,) = _requests(Prompts(3), 0.0, rate=1.0, seconds=2.0)[:1]
    tokens = request.planned.output_tokens
    path, body = encode(request, v2=True)
    asked = orjson.loads(body)
    assert path == "/v2/models/model/generate"
    assert asked["parameters"] == {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    assert len(asked["text_input"].split()) == request.planned.prompt_tokens
    path, body = encode(request, v2=False)
    raw = orjson.loads(body)
    assert path == "/v1/completions"
    assert (raw["prompt"], raw["max_tokens"]) == (protocols.prompt(request.planned), tokens)
