"""perf/fixed_predictor.py stands behind many tests: it starts whatever the server asks for."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx

FIXED_PREDICTOR = Path(__file__).parents[3] / "perf" / "fixed_predictor.py"


def test_the_predictor_over_the_fixed_engine_starts_answers_and_ends(free_ports, eventually):
    http, grpc = free_ports(2)
    url = f"http://127.0.0.1:{http}"
    process = subprocess.Popen(
        [
            *(sys.executable, FIXED_PREDICTOR, "--token_ms=1", "--host=127.0.0.1"),
            *(f"--http_port={http}", f"--grpc_port={grpc}", "--log_level=warning"),
        ]
    )

    def is_ready():
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/v2/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        eventually(is_ready, "it is ready", timeout_s=60)
        body = {"text_input": "Hi", "parameters": {"max_tokens": 3}}
        answer = httpx.post(f"{url}/v2/models/model/generate", json=body).json()
        assert len(answer["text_output"].split()) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
