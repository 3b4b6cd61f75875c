"""The engine's text is the model's own, and the same on every protocol."""

import json
import os
from collections.abc import Callable

import grpc
import httpx
import pytest

from openinference import text_tensors, v2_grpc
from openinference.generation import GenerationRequest
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from openinference.sampling import SamplingParams

from .conftest import MODEL, Stack

SHORT = "The capital of France is"
LONG = (
    "Water is a chemical compound whose molecules consist of one oxygen atom and two hydrogen "
    "atoms. At room temperature it is a transparent, tasteless and odorless liquid. It covers "
    "about seventy percent of the surface of the Earth, mostly in seas and oceans, and all known "
    "forms of life need it. When water is cooled below zero degrees it"
)
TOKENS = 24
# So that the engine answers, and not what it said before.
NO_STORE = {"Cache-Control": "no-store"}
METADATA = (("cache-control", "no-store"),)


@pytest.fixture(scope="session")
def hf_greedy(stack: Stack) -> Callable[[str], tuple[str, int]]:
    """HuggingFace's own greedy continuation of a prompt, and the prompt's length in tokens."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from keepwarm.local.model_folder import demo_folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_folder())
    model = AutoModelForCausalLM.from_pretrained(demo_folder(), dtype=torch.float32)

    def generate(prompt: str) -> tuple[str, int]:
        tokens = tokenizer(prompt, return_tensors="pt")
        length = tokens["input_ids"].shape[1]
        with torch.inference_mode():
            output = model.generate(**tokens, max_new_tokens=TOKENS, do_sample=False)
        return tokenizer.decode(output[0, length:], skip_special_tokens=True), length

    return generate


def infer(stack: Stack, prompt: str) -> str:
    answer = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/infer",
        json={
            "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [prompt]}],
            "parameters": {"max_tokens": TOKENS, "temperature": 0},
        },
        headers=NO_STORE,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


def infer_grpc(stack: Stack, prompt: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(
            grpc_request(prompt), metadata=METADATA, timeout=60
        )
    (chunk,) = text_tensors.chunks(v2_grpc.decode_response(answer))
    return chunk.text


def stream_grpc(stack: Stack, prompt: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc}") as channel:
        answers = list(
            GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter([grpc_request(prompt)]), metadata=METADATA, timeout=60
            )
        )
    assert len(answers) > 5
    assert not any(answer.error_message for answer in answers)
    finals = [
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    ]
    assert finals == [False] * (len(answers) - 1) + [True]
    return "".join(
        chunk.text
        for answer in answers
        for chunk in text_tensors.chunks(v2_grpc.decode_response(answer.infer_response))
    )


def grpc_request(prompt: str) -> pb.ModelInferRequest:
    sampling = SamplingParams(max_tokens=TOKENS, temperature=0.0)
    request = GenerationRequest(MODEL, (prompt,), sampling, stream=False)
    return v2_grpc.encode_request(text_tensors.infer_request(request))


def generate(stack: Stack, prompt: str) -> str:
    answer = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/generate",
        json={"text_input": prompt, "parameters": {"max_tokens": TOKENS, "temperature": 0}},
        headers=NO_STORE,
        timeout=60,
    )
    return answer.json()["text_output"]


def generate_stream(stack: Stack, prompt: str) -> str:
    body = {"text_input": prompt, "parameters": {"max_tokens": TOKENS, "temperature": 0}}
    url = f"{stack.url}/v2/models/{MODEL}/generate_stream"
    with httpx.stream("POST", url, json=body, headers=NO_STORE, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert len(events) > 5
    assert events[-1]["finish_reason"] == "length"
    return "".join(event["text_output"] for event in events)


def completions(stack: Stack, prompt: str) -> str:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    answer = httpx.post(
        f"{stack.url}/openai/v1/completions", json=body, headers=NO_STORE, timeout=60
    )
    return answer.json()["choices"][0]["text"]


@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "long"])
def test_greedy_text_equals_huggingface(
    stack: Stack, hf_greedy: Callable[[str], tuple[str, int]], prompt: str
) -> None:
    expected, length = hf_greedy(prompt)
    assert (length > 32) == (prompt is LONG)
    assert infer(stack, prompt) == expected


@pytest.mark.parametrize(
    "ask",
    [infer_grpc, stream_grpc, generate, generate_stream, completions],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "long"])
def test_every_protocol_gives_the_same_text(
    stack: Stack, ask: Callable[[Stack, str], str], prompt: str
) -> None:
    assert ask(stack, prompt) == infer(stack, prompt)


def test_chat_uses_the_models_own_template_on_v2_and_openai_alike(stack: Stack) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    openai = httpx.post(
        f"{stack.url}/openai/v1/chat/completions",
        json={"model": MODEL, "messages": messages, "temperature": 0},
        headers=NO_STORE,
        timeout=60,
    ).json()
    v2 = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/infer",
        json={
            "inputs": [
                {
                    "name": "messages",
                    "shape": [1],
                    "datatype": "BYTES",
                    "data": [json.dumps(messages)],
                }
            ],
            "outputs": [
                {"name": name}
                for name in (
                    "text_output",
                    "finish_reason",
                    "num_input_tokens",
                    "num_output_tokens",
                )
            ],
            "parameters": {"max_tokens": 32, "temperature": 0},
        },
        headers=NO_STORE,
        timeout=60,
    ).json()
    text, reason, num_input, num_output = (output["data"][0] for output in v2["outputs"])
    assert openai["choices"][0]["message"]["content"] == text == "The capital of France is Paris."
    assert reason == "eos_token"
    assert openai["choices"][0]["finish_reason"] == "stop"
    assert openai["usage"] == {
        "prompt_tokens": num_input,
        "completion_tokens": num_output,
        "total_tokens": num_input + num_output,
    }


def test_several_prompts_and_choices_come_back_in_order(stack: Stack) -> None:
    body = {
        "model": MODEL,
        "prompt": [SHORT, "Two plus two equals"],
        "n": 2,
        "max_tokens": 4,
        "temperature": 0,
    }
    whole = httpx.post(
        f"{stack.url}/openai/v1/completions", json=body, headers=NO_STORE, timeout=60
    ).json()
    texts = [choice["text"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert texts[0].startswith(" Paris")
    assert texts[2] != texts[0]
    pieces = [""] * 4
    url = f"{stack.url}/openai/v1/completions"
    with httpx.stream(
        "POST", url, json={**body, "stream": True}, headers=NO_STORE, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if line and line != "data: [DONE]":
                (choice,) = json.loads(line[6:])["choices"]
                pieces[choice["index"]] += choice["text"]
    assert pieces == texts


def test_a_stop_sequence_ends_the_text_before_it_and_says_so(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/generate",
        json={
            "text_input": SHORT,
            "parameters": {"max_tokens": 24, "temperature": 0, "stop": ["."], "details": True},
        },
        headers=NO_STORE,
        timeout=60,
    ).json()
    assert answer["text_output"] == " Paris"
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_a_seed_makes_sampling_repeatable(stack: Stack) -> None:
    def sample(seed: int) -> str:
        parameters = {"max_tokens": 16, "temperature": 1.0, "seed": seed}
        return httpx.post(
            f"{stack.url}/v2/models/{MODEL}/generate",
            json={"text_input": "Once upon a time", "parameters": parameters},
            headers=NO_STORE,
            timeout=60,
        ).json()["text_output"]

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1
