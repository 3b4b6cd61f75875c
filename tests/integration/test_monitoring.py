"""Every query of the dashboards and rules in a real Prometheus that scrapes real servers.

What our servers tell comes from a transformer and a predictor over the engine of fixed capacity,
under a little traffic of every kind. vLLM's series come from a recorded exposition and DCGM's from
one in its exporter's form (tests/data/expositions), the warm-pool controller's from its own
registry with one made-up WarmPool: there is no GPU and no cluster here. A query that nothing can
feed in a test of seconds is named in `WITHOUT_DATA` with the reason; it must still be one that
Prometheus can evaluate.
"""

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import generate_latest

from keepwarm.warmpool import metrics as warmpool
from keepwarm.warmpool.observed import Pool
from openinference import key_file
from openinference.api_keys import new_key
from tests.redis_servers import RedisServer

from .faults import servers
from .faults.servers import MODEL, Server

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "manifests" / "monitoring"
EXPOSITIONS = REPOSITORY / "tests" / "data" / "expositions"
# What our scrape jobs add to each series.
OURS = {"namespace": "default", "inferenceservice": "chat"}
PLANS = {"gold": {"requests": {"limit": 6000}, "tokens": {"limit": 100_000}}}
LOW = {"tiny": {"requests": {"limit": 1, "per_s": 3600, "burst": 1}}}

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)"
)

POISON = "poison"
# By what a query contains.
WITHOUT_DATA = {
    "keepwarm_redis_failures_total": "Redis answers here; tests/integration/limits makes it fail",
}


def queries() -> dict[str, str]:
    """Every expression, by where it is."""
    found = {}
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = (
                    target["expr"]
                    .replace("$__rate_interval", "1m")
                    .replace("$namespace", ".*")
                    .replace("$inferenceservice", ".*")
                )
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            name = rule.get("record") or rule["alert"]
            where = f"rules: {name} {rule.get('labels', {}).get('window', '')}"
            # An alert has data when what it compares has.
            for number, part in enumerate(compared(rule["expr"])):
                found[f"{where} {number}"] = part
    return found


def compared(expression: str) -> list[str]:
    """The expressions that an alert compares with its bounds; all of another expression."""
    parts = re.split(r" and | or (?!0)", expression)
    return [re.split(r" (?:==|>|<) ", part)[0] for part in parts]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def result(self, query: str) -> list[dict[str, object]]:
        """What a query finds; fails on one that cannot be evaluated."""
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": query}, timeout=60).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        result: list[dict[str, object]] = answer["data"]["result"]
        return result


@contextmanager
def expositions(pages: dict[str, bytes]) -> Iterator[int]:
    """Serves texts by path; yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages[self.path])

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def warm_pool_page() -> bytes:
    """What the controller tells of one WarmPool, after a step."""
    status = {
        "want": 2,
        "have": 1,
        "leadSeconds": 45,
        "coldStartSeconds": [31],
        "conditions": [{"type": "Ready", "status": "False"}],
    }
    metadata = {"namespace": "default", "name": "chat", "uid": "u", "resourceVersion": "1"}
    pool = Pool.read({"metadata": metadata, "spec": {}, "status": status})
    pools = warmpool.Pools(lambda: [pool], leading=lambda: True, waiting=lambda: 0)
    warmpool.RECONCILES.labels("done").inc()
    warmpool.REGISTRY.register(pools)
    try:
        page: bytes = generate_latest(warmpool.REGISTRY)
        return page
    finally:
        warmpool.REGISTRY.unregister(pools)


def _job(name: str, path: str, target: str, labels: dict[str, str]) -> dict[str, object]:
    return {
        "job_name": name,
        "metrics_path": path,
        "honor_labels": True,
        "static_configs": [{"targets": [target], "labels": labels}],
    }


@pytest.fixture
def start_prometheus(
    tmp_path: Path, free_ports: Callable[[int], list[int]], eventually: Callable[..., None]
) -> Iterator[Callable[[list[dict[str, object]]], Prometheus]]:
    """Starts Prometheus with our rules and these scrape jobs, all once a second."""
    started: list[subprocess.Popen[bytes]] = []

    def start(jobs: list[dict[str, object]]) -> Prometheus:
        (port,) = free_ports(1)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "rules.yaml")],
            "scrape_configs": jobs,
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        started.append(
            subprocess.Popen(
                [
                    *("prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}"),
                    *(f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=warn"),
                    f"--web.listen-address=127.0.0.1:{port}",
                ]
            )
        )
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        eventually(prometheus.is_ready, "Prometheus is ready", timeout_s=60)
        return prometheus

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[dict[str, str], list[str]]:
    """A key of each plan, and the transformer's flags for them."""
    pairs = {plan: new_key(tenant="acme", plan=plan) for plan in (*PLANS, *LOW)}
    (tmp_path / "keys.yaml").write_text(key_file.dump([key for _, key in pairs.values()]))
    (tmp_path / "plans.yaml").write_text(
        yaml.safe_dump({"plans": {**PLANS, **LOW, "anonymous": PLANS["gold"]}})
    )
    flags = [f"--{name}_file={tmp_path / f'{name}.yaml'}" for name in ("keys", "plans")]
    return {plan: text for plan, (text, _) in pairs.items()}, flags


class Caller:
    """Asks a transformer with one key; answers are statuses."""

    def __init__(self, server: Server, key: str) -> None:
        self._url = f"{server.url}/openai/v1/completions"
        self._key = key

    def ask(self, prompt: str, *, within_s: float = 60, **more: object) -> int:
        return httpx.post(
            self._url,
            json={"model": MODEL, "prompt": prompt, "max_tokens": 4, **more},
            headers={"x-api-key": self._key, "x-request-timeout": f"{within_s}"},
            timeout=90,
        ).status_code

    def ask_at_once(self, prompts: list[str], **more: object) -> list[int]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: self.ask(prompt, **more), prompts))


def drive(server: Server, keys: dict[str, str]) -> None:
    """One request of each kind that a metric tells of."""
    gold, tiny = Caller(server, keys["gold"]), Caller(server, keys["tiny"])
    assert gold.ask("a", temperature=0) == gold.ask("a", temperature=0) == 200
    assert gold.ask("b", stream=True) == gold.ask("c", stream=True, temperature=0) == 200
    assert gold.ask(POISON) == 500
    assert (tiny.ask("a"), tiny.ask("a")) == (200, 429)
    assert Caller(server, new_key(tenant="x")[0]).ask("a") == 401
    # The same greedy prompt is worked on once; of different ones one runs, one waits.
    assert gold.ask_at_once(["d", "d"], temperature=0, max_tokens=20) == [200, 200]
    assert sorted(set(gold.ask_at_once([f"n{k}" for k in range(6)], max_tokens=20))) == [200, 503]
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "e"}], "max_tokens": 4}
    answer = httpx.post(
        f"{server.url}/openai/v1/chat/completions",
        json=chat,
        headers={"authorization": f"Bearer {keys['gold']}"},
        timeout=90,
    )
    assert answer.status_code == 200


def test_every_query_of_dashboards_and_rules_has_data(
    start_prometheus: Callable[[list[dict[str, object]]], Prometheus],
    keys: tuple[dict[str, str], list[str]],
    redis_server: RedisServer,
    free_ports: Callable[[int], list[int]],
    eventually: Callable[..., None],
) -> None:
    texts, flags = keys
    pages = {
        **{f"/{path.stem}": path.read_bytes() for path in EXPOSITIONS.glob("*.txt")},
        "/warm-pool": warm_pool_page(),
    }
    (port,) = free_ports(1)
    with (
        servers.transformer(
            f"127.0.0.1:{port}",
            *(*flags, f"--redis_url={redis_server.url}", "--redis_timeout_s=1"),
            *("--predictor_concurrency=1", "--queue_most=1"),
        ) as transformer,
        expositions(pages) as recorded,
        ExitStack() as later,
    ):
        with servers.predictor(grpc=port):
            assert Caller(transformer, texts["gold"]).ask("first") == 200
        # It is gone: the call is repeated, then held until its caller has no more time.
        assert Caller(transformer, texts["gold"]).ask("second", within_s=2) in {503, 504}
        predictor = later.enter_context(servers.predictor(grpc=port))
        ours = {**OURS, "pod": "a"}
        prometheus = start_prometheus(
            [
                {
                    **_job("keepwarm", "/metrics", f"127.0.0.1:{transformer.http}", ours),
                    "static_configs": [
                        {
                            "targets": [f"127.0.0.1:{server.http}"],
                            "labels": {**ours, "component": component},
                        }
                        for component, server in (
                            ("transformer", transformer),
                            ("predictor", predictor),
                        )
                    ],
                },
                _job(
                    "engine",
                    "/vllm",
                    f"127.0.0.1:{recorded}",
                    {**ours, "component": "predictor"},
                ),
                _job("dcgm", "/dcgm", f"127.0.0.1:{recorded}", {}),
                _job("keepwarm-warm-pool", "/warm-pool", f"127.0.0.1:{recorded}", {}),
            ]
        )
        drive(transformer, texts)
        all_queries = queries()
        assert len(all_queries) > 100
        empty: list[str] = []

        def all_have_data() -> bool:
            empty[:] = [
                f"{where}: {query}"
                for where, query in all_queries.items()
                if not prometheus.result(query) and not _is_excused(query)
            ]
            return not empty

        try:
            eventually(all_have_data, "every query has data", timeout_s=60, every_s=2)
        except AssertionError:
            pytest.fail("no data:\n" + "\n".join(empty))


def _is_excused(query: str) -> bool:
    return any(metric in query for metric in WITHOUT_DATA)
