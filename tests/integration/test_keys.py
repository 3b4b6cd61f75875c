"""Keys and limits in front of the real engine: unchanged clients, honest token counts."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from llm_transformer.limits import tokens
from openinference import key_file
from openinference.api_keys import new_key
from openinference.generation import Conversation

from .conftest import MODEL, Stack
from .test_answers import SHORT, infer

PLAN = {
    "requests": {"limit": 6000},
    "tokens": {"limit": 100_000},
    "max_prompt_tokens": 30,
}


@pytest.fixture
def keyed(
    stack: Stack,
    tmp_path: Path,
    start_transformer: Callable[..., tuple[subprocess.Popen[bytes], str]],
) -> tuple[str, str, str]:
    """A transformer that asks for keys: its REST and gRPC addresses, and a key."""
    text, key = new_key(tenant="acme")
    (tmp_path / "keys.yaml").write_text(key_file.dump([key]))
    (tmp_path / "plans.yaml").write_text(yaml.safe_dump({"plans": {"default": PLAN}}))
    process, url = start_transformer(
        stack.predictor_grpc,
        "--allow_anonymous=false",
        f"--keys_file={tmp_path / 'keys.yaml'}",
        f"--plans_file={tmp_path / 'plans.yaml'}",
    )
    grpc = next(arg for arg in process.args if str(arg).startswith("--grpc_port="))
    return url.removeprefix("http://"), f"127.0.0.1:{grpc.partition('=')[2]}", text


@pytest.mark.parametrize("group", ["kserve", "others"])
def test_unchanged_clients_bring_a_key_by_their_own_options(
    stack: Stack, keyed: tuple[str, str, str], run_client: Callable[..., str], group: str
) -> None:
    http, grpc, key = keyed
    texts = yaml.safe_load(run_client("keyed.py", group, http, grpc, MODEL, SHORT, key))
    assert set(texts.values()) == {infer(stack, SHORT)}


# One token a byte is what odd texts come to.
PROMPTS = [
    "The capital of France is",
    "",
    "a",
    "Ω≈ç√∫µ≤≥÷",
    "日本語のテキスト、そして中国語和韩文 한국어",
    "👩‍👩‍👧‍👦🏳️‍🌈🇫🇷",
    "\U0001d160" * 5,
    "\ufdfa\ufdfa",
    "\x00\x01\x7f\u202e\ufeff",
    "é" * 10 + "e\u0301" * 10,
    "<|im_start|>system<|im_end|>",
    "0123456789 " * 3,
    " " * 50 + "\n" * 20,
]


def test_no_prompt_has_more_tokens_than_are_reserved_for_it(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        for prompt in PROMPTS:
            chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": prompt}]
            chat.append({"role": "user", "content": "?"})
            for path, body, counted in (
                ("completions", {"prompt": prompt}, prompt),
                ("chat/completions", {"messages": chat}, Conversation(tuple(chat))),
            ):
                if prompt == "" and path == "completions":
                    continue
                answer = client.post(f"/v1/{path}", json={"model": MODEL, "max_tokens": 1, **body})
                assert answer.status_code == 200, answer.text
                used = answer.json()["usage"]["prompt_tokens"]
                assert used <= tokens.prompt_bound([counted], template_tokens=128), prompt


def test_what_is_charged_is_what_the_engine_counted(keyed: tuple[str, str, str]) -> None:
    http, _, key = keyed
    with httpx.Client(
        base_url=f"http://{http}", timeout=60, headers={"authorization": f"Bearer {key}"}
    ) as client:
        body = {"model": MODEL, "prompt": SHORT, "max_tokens": 7, "n": 2, "temperature": 1}
        answer = client.post("/v1/completions", json=body)
        families = text_string_to_metric_families(client.get("/metrics").text)
        (charged,) = (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "keepwarm_limit_tokens_charged_total"
        )
        usage = answer.json()["usage"]
        assert charged == usage["prompt_tokens"] + usage["completion_tokens"]
        assert re.search(r'"tokens";r=\d+;t=0', answer.headers["ratelimit"])


def test_a_prompt_over_the_plans_length_is_counted_by_the_engine_and_refused(
    keyed: tuple[str, str, str],
) -> None:
    http, _, key = keyed
    with httpx.Client(base_url=f"http://{http}", timeout=60, headers={"x-api-key": key}) as client:
        statuses = {
            words: client.post(
                "/v1/completions",
                json={"model": MODEL, "prompt": "word " * words, "max_tokens": 1},
            )
            for words in (20, 60)
        }
    assert statuses[20].status_code == 200
    assert statuses[60].status_code == 400
    assert re.search(
        r"the prompt has \d+ tokens; at most 30 are allowed here",
        statuses[60].json()["error"]["message"],
    )


def test_keepwarm_run_prints_a_key_that_works(stack: Stack) -> None:
    key = next(m[1] for line in stack.lines if (m := re.search(r"Bearer (kw_\S+?)'", line)))
    body = {"model": MODEL, "prompt": SHORT, "max_tokens": 1}
    statuses = [
        httpx.post(
            f"{stack.url}/v1/completions", json=body, headers={"authorization": f"Bearer {given}"}
        ).status_code
        for given in (key, "none", key[:-43] + "x" * 43)
    ]
    assert statuses == [200, 200, 401]
