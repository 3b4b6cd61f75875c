"""Cold starts on this machine, process start to first token: vLLM's server and our predictor.

    python perf/gpu/cold_start.py --model FOLDER --work FOLDER

Image and weights are local (`--load_format auto` reads them, dummy makes them up). Rows, in order:
vLLM's server as a user starts it, with an empty and with a filled compile cache; the same with our
engine settings; our predictor with what `vllm_predictor.bake` made. Sleep and wake at the end.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from engines import Engine, Server, start_ours, start_raw

PORT = 18000
SETTLE_S = 2.0
_READY = re.compile(r"ready after .*")
_DONE = re.compile(
    r"Loading weights took.*|torch\.compile took.*|Graph capturing finished.*|init engine.*"
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="logs and caches go here")
    parser.add_argument("--load_format", default="dummy")
    parser.add_argument("--rows", default="stock-empty,stock-filled,tuned,bake,ours,sleep")
    parser.add_argument("--repeat", type=int, default=3, help="starts of ours")
    parser.add_argument("--max_num_seqs", type=int, default=256)
    parser.add_argument("--max_model_len", type=int, default=3072)
    parser.add_argument("--kv_cache_gib", type=float, help="instead of measuring it")
    parser.add_argument("--eager", action="store_true", help="for a machine without a GPU")
    parser.add_argument(
        "--flags", type=shlex.split, default=[], help='more of our predictor: "--a=b --c"'
    )
    return parser.parse_args()


def main() -> None:
    """The command."""
    given = _arguments()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    engine = Engine(
        given.model.resolve(),
        load_format=given.load_format,
        max_num_seqs=given.max_num_seqs,
        max_model_len=given.max_model_len,
        kv_cache_gib=given.kv_cache_gib,
        eager=given.eager,
    )
    rows = given.rows.split(",")
    stock(engine, rows, work)
    baked = work / "baked"
    if "bake" in rows:
        bake(engine, baked, work, given.flags)
    manifest = baked / "baked.json"
    if manifest.exists():
        engine = replace(engine, kv_cache_gib=json.loads(manifest.read_text())["kv_cache_gib"])
    if "tuned" in rows:
        for turn in ("tuned-empty", "tuned-filled"):
            report(turn, start_raw(engine, PORT, work / f"{turn}.log"))
    ours, flags = engine, given.flags
    if manifest.exists():
        ours = replace(engine, kv_cache_gib=None)
        flags = [f"--compile_cache={baked}", *flags]
    if "ours" in rows:
        seconds = []
        for turn in range(given.repeat):
            log = work / f"ours-{turn}.log"
            seconds.append(report(f"ours-{turn}", start_ours(ours, PORT, log, *flags)))
        print(f"ours: median {statistics.median(seconds):.1f} s of {given.repeat}", flush=True)
    if "sleep" in rows:
        sleep(ours, work, given.flags)


def stock(engine: Engine, rows: list[str], work: Path) -> None:
    """VLLM's server as a user starts it who only names the model."""
    raw_cache = work / "raw-cache"
    if "stock-empty" in rows:
        shutil.rmtree(raw_cache, ignore_errors=True)
    os.environ["VLLM_CACHE_ROOT"] = str(raw_cache)
    for row in ("stock-empty", "stock-filled"):
        if row in rows:
            report(row, start_raw(engine, PORT, work / f"{row}.log", tuned=False))


def report(row: str, server: Server) -> float:
    """Waits for the first token, prints it and what the log says of phases, ends the server."""
    try:
        seconds = server.first_token_s()
        after = [server.ask(f"Say something about the number {n}", 1) or 0.0 for n in range(3)]
    finally:
        server.end()
    print(f"{row}: first token {seconds:.1f} s, next {1e3 * after[0]:.0f} ms", flush=True)
    log = server.log.read_text(errors="replace")
    for line in [*_READY.findall(log), *_DONE.findall(log)]:
        print(f"    {line[:150]}", flush=True)
    time.sleep(SETTLE_S)
    return seconds


def bake(engine: Engine, folder: Path, work: Path, flags: list[str]) -> None:
    """Fills a compile cache and prints what that cost."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "vllm_predictor.bake", f"--compile_cache={folder}"]
    with (work / "bake.log").open("wb") as log:
        done = subprocess.run(  # noqa: S603 (ours)
            [*command, *engine.ours(), *flags], stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        sys.exit((work / "bake.log").read_text(errors="replace")[-3000:])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    kv_cache_gib = json.loads((folder / "baked.json").read_text())["kv_cache_gib"]
    print(
        f"bake: {time.monotonic() - began:.0f} s, {size / 2**20:.0f} MiB, KV {kv_cache_gib} GiB",
        flush=True,
    )
    time.sleep(SETTLE_S)


def sleep(engine: Engine, work: Path, flags: list[str]) -> None:
    """Memory given back and seconds to the first token, at both levels, twice each."""
    kv_cache_gib = 16.0
    engine = replace(engine, sleep_mode=True, kv_cache_gib=kv_cache_gib)
    server = start_ours(engine, PORT, work / "sleep.log", *flags)
    try:
        server.first_token_s()
        # Level 2 reads the weights again, and made-up ones are nowhere to be read.
        for level in (1, 1) if engine.load_format == "dummy" else (1, 1, 2, 2):
            began = time.monotonic()
            answer = json.load(
                urllib.request.urlopen(
                    urllib.request.Request(
                        f"http://127.0.0.1:{PORT + 2}/sleep?level={level}", method="POST"
                    ),
                    timeout=60,
                )
            )
            slept = time.monotonic() - began
            first = server.ask("Hello again", 1)
            warm = server.ask("Hello once more", 1)
            print(
                f"sleep level {level}: {slept:.2f} s, {answer['freed_bytes'] / 2**30:.1f} GiB given"
                f" back; wake to the first token {first or -1:.2f} s (awake {warm or -1:.3f} s)",
                flush=True,
            )
    finally:
        server.end()


if __name__ == "__main__":
    main()
