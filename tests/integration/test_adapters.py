"""LoRA adapters on the real engine: made by peft here, and compared with what peft says itself."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keepwarm.local.model_folder import demo_folder

BASE = "base"
PROMPT = "Once upon a time"
TOKENS = 5
# Three adapters and two places.
ADAPTERS = {"poet": 1, "clerk": 2, "pirate": 3}
SHIPPED = "poet"
BROKEN = "torn"


@dataclass(frozen=True)
class Served:
    """A predictor with adapters, and what HuggingFace and peft say to the prompt."""

    predictor: str
    predictor_grpc: int
    texts: dict[str, str]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 when there are none."""
        text = httpx.get(f"{self.predictor}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def generate(url: str, model: str, tokens: int = TOKENS) -> httpx.Response:
    parameters = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    body = {"text_input": PROMPT, "parameters": parameters}
    return httpx.post(f"{url}/v2/models/{model}/generate", json=body, timeout=120)


def texts_of_peft(folder: Path, adapters: Path) -> dict[str, str]:
    """Makes the adapters, and says what the model answers with each and with none."""
    import torch
    from peft import LoraConfig, get_peft_model

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(PROMPT, return_tensors="pt")

    def answer(model) -> str:
        ids = model.generate(
            **tokens, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False
        )
        return tokenizer.decode(ids[0, tokens.input_ids.shape[1] :], skip_special_tokens=True)

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = {BASE: answer(base)}
    for name, seed in ADAPTERS.items():
        torch.manual_seed(seed)
        # Not the usual start, at which B is zero and the adapter changes nothing.
        config = LoraConfig(
            r=8,
            lora_alpha=16,
            target_modules=["q_proj", "v_proj", "down_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(base, config).eval()
        adapted.save_pretrained(adapters / name)
        texts[name] = answer(adapted)
        base = adapted.unload()
    return texts


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Callable[[int], list[int]],
    eventually: Callable[..., None],
) -> Iterator[Served]:
    """One engine with an adapter of the command line and a folder of others, one of them torn."""
    made, allowed = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("allowed")
    texts = texts_of_peft(demo_folder(), made)
    for name in ADAPTERS:
        if name != SHIPPED:
            shutil.copytree(made / name, allowed / name)
    weights = shutil.copytree(made / SHIPPED, allowed / BROKEN) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    http, grpc = free_ports(2)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm_predictor", f"--model_name={BASE}"),
            *(f"--model_dir={demo_folder()}", "--profile=cpu-demo", "--host=127.0.0.1"),
            *(f"--http_port={http}", f"--grpc_port={grpc}"),
            *(f"--adapters={SHIPPED}={made / SHIPPED}", f"--adapters_dir={allowed}"),
            *("--max_adapters=2", "--max_adapters_per_batch=2", "--max_adapter_rank=8"),
        ]
    )
    url = f"http://127.0.0.1:{http}"
    try:

        def ready() -> bool:
            assert process.poll() is None, "the predictor has ended"
            try:
                return httpx.get(f"{url}/v2/health/ready").status_code == 200
            except httpx.HTTPError:
                return False

        eventually(ready, "the predictor is ready", timeout_s=300)
        yield Served(url, grpc, texts)
    finally:
        process.terminate()
        process.wait(60)


def test_each_name_answers_what_peft_answers_and_all_differ(served: Served) -> None:
    assert len(set(served.texts.values())) == len(served.texts)
    # The base once more at the end: no adapter has touched it.
    for name in (*served.texts, BASE):
        answer = generate(served.predictor, name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["text_output"] == served.texts[name], name


def test_only_as_many_stay_as_have_places_and_the_least_recently_used_leaves(
    served: Served,
) -> None:
    before = served.metric("keepwarm_adapter_evictions_total")
    generated = served.metric("keepwarm_adapter_output_tokens_total", adapter="poet")
    for name in ("clerk", "pirate", "poet"):
        first = generate(served.predictor, name, tokens=1).json()["text_output"]
        assert served.texts[name].startswith(first)
    resident = {name: served.metric("keepwarm_adapter_resident", adapter=name) for name in ADAPTERS}
    assert resident == {"poet": 1, "clerk": 0, "pirate": 1}
    assert served.metric("keepwarm_adapter_evictions_total") > before
    assert served.metric("keepwarm_adapter_evictions_total", adapter="clerk") >= 1
    counted = served.metric("keepwarm_adapter_output_tokens_total", adapter="poet")
    assert counted == generated + 1
    assert served.metric("keepwarm_adapter_requests_total", adapter="poet", status="200") >= 1
    loaded = {
        name: httpx.get(f"{served.predictor}/v2/models/{name}").json()["properties"]
        for name in ("poet", "clerk")
    }
    assert [each["loaded"] for each in loaded.values()] == ["true", "false"]
    assert {each["base_model"] for each in loaded.values()} == {BASE}


def test_an_unknown_name_is_404_a_torn_adapter_424_and_neither_harms_the_others(
    served: Served,
) -> None:
    assert generate(served.predictor, "nobody").status_code == 404
    for _ in range(2):
        torn = generate(served.predictor, BROKEN)
        assert torn.status_code == 424
        assert "cannot be read" in torn.json()["error"]
    assert httpx.get(f"{served.predictor}/v2/models/{BROKEN}/ready").status_code == 503
    assert httpx.get(f"{served.predictor}/v2/models/{BASE}/ready").status_code == 200
    assert served.metric("keepwarm_adapter_loads_total", adapter=BROKEN, outcome="failed") == 1
    assert generate(served.predictor, BASE, tokens=1).status_code == 200


def test_the_transformers_table_gives_adapters_names_and_keeps_their_answers_apart(
    served: Served,
    start_transformer: Callable[..., tuple[subprocess.Popen[bytes], str]],
    tmp_path: Path,
) -> None:
    table = tmp_path / "models.yaml"
    table.write_text(f"models: {{{BASE}: , verse: {{predictor_name: poet}}, gone: , {BROKEN}: }}")
    _, url = start_transformer(served.predictor_grpc, f"--models_file={table}")
    for name, known_as in ((BASE, BASE), ("verse", "poet")):
        first, again = generate(url, name), generate(url, name)
        assert first.json()["text_output"] == served.texts[known_as]
        assert again.json()["text_output"] == served.texts[known_as]
        assert [each.headers["x-cache"] for each in (first, again)] == ["miss", "hit"]
    # Not in the table; in it, but not the predictor's; torn.
    statuses = [generate(url, name).status_code for name in ("poet", "gone", BROKEN)]
    assert statuses == [404, 404, 424]
