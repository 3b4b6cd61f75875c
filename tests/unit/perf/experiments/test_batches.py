"""What a sweep asks an engine, over and over."""

import json

import batches
from mix import Prompts, Request
from stacks import Served


def test_no_prompt_is_asked_twice_and_each_is_as_long_as_the_first():
    (planned,) = Prompts(1).in_turn(1)
    exchange = batches._exchange(Served((1,), True, {}), Request(planned, stream=False), [])
    requests = [exchange.request, *(exchange.fresh() for _ in range(4))]
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]
    prompts = [body["text_input"] for body in bodies]
    assert len(set(prompts)) == len(prompts)
    # The first word is what they differ in: vLLM keeps what prompts begin with.
    assert len({prompt.split()[0] for prompt in prompts}) == len(prompts)
    assert {len(prompt.split()) for prompt in prompts} == {planned.prompt_tokens}
    assert all(body["parameters"]["max_tokens"] == planned.output_tokens for body in bodies)


def test_two_connections_never_share_a_prompt():
    asked = [
        batches._exchange(Served((1,), True, {}), Request(planned, stream=True), []).fresh()
        for planned in Prompts(1).in_turn(12)
    ]
    assert len(set(asked)) == 12
