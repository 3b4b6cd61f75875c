"""`python tests/chaos`: kill -9 and -STOP at random under mixed load, and every answer judged.

One predictor (an engine of fixed capacity whose right answers are known), one Redis, two
transformers with keys and limits. A fault is one process dying or freezing for a moment; the next
comes when it is well again. Afterwards every call must have ended in an allowed way, the books of
the transformer that no fault hit must say what its callers got, and no lease may be left.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "perf"))

from callers import Call, Callers
from plan import Fault, Kind, Target, faults
from processes import LONGEST_S, Process, Stack, revive, thaw
from verdict import Death, Outcome, charge, outcome

from openinference import key_file
from openinference.api_keys import new_key

CONCURRENT = 48
# A lease ends a little after its request's deadline.
LEASES_END_S = LONGEST_S + 10.0
PLANS = f"""
plans:
  main:
    concurrent: {CONCURRENT}
    tokens: {{limit: 100000000, burst: 100000000}}
  small:
    requests: {{limit: 60, per_s: 60}}
    tokens: {{limit: 100000000, burst: 100000000}}
"""


class Chaos:
    """One run."""

    def __init__(self, stack: Stack, keys: dict[str, str], seed: int) -> None:
        self._stack = stack
        self._callers = Callers((stack.steady, stack.hit), keys, seed)
        self._deaths: dict[str, list[Death]] = {stack.steady.name: [], stack.hit.name: []}
        self.applied: Counter[str] = Counter()
        self.problems: list[str] = []
        self.outcomes: Counter[str] = Counter()

    @property
    def calls(self) -> list[Call]:
        """All that was asked for."""
        return self._callers.calls

    async def run(self, planned: list[Fault], longest_s: float) -> None:
        """The whole of it."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        load = asyncio.create_task(self._callers.run(stop))
        began = loop.time()
        for fault in planned:
            if loop.time() - began > longest_s:
                self.problems.append(f"only {self.applied.total()} faults in {longest_s:g} s")
                break
            await self._apply(fault)
        stop.set()
        await load
        await self._check_leases()
        self._judge()

    async def _apply(self, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        process: Process = {
            Target.PREDICTOR: self._stack.predictor,
            Target.REDIS: self._stack.redis,
            Target.TRANSFORMER: self._stack.hit,
        }[fault.target]
        began = loop.time()
        if fault.kind is Kind.KILL:
            process.kill()
            if fault.target is Target.TRANSFORMER:
                self._deaths[self._stack.hit.name].append(Death(began, loop.time()))
        else:
            process.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.hold_s)
        await (revive(process) if fault.kind is Kind.KILL else thaw(process))
        self.applied[f"{fault.kind} {fault.target}"] += 1
        await asyncio.sleep(fault.pause_s)

    def _judge(self) -> None:
        for call in self.calls:
            ended = outcome(call, self._deaths[call.to])
            if isinstance(ended, Outcome):
                self.outcomes[ended] += 1
            else:
                self.problems.append(ended)

    async def books(self) -> tuple[int, float, int]:
        """What the steady transformer has charged, between the least and the most it may have."""
        least = most = 0
        for call in self.calls:
            if call.to == self._stack.steady.name:
                ended = outcome(call, ())
                low, high = charge(call, ended) if isinstance(ended, Outcome) else (0, 0)
                least += low
                most += high
        charged = await self._stack.steady.metric("keepwarm_limit_tokens_charged_total")
        if not least <= charged <= most:
            self.problems.append(
                f"the steady transformer charged {charged:g} tokens; {least} to {most} are right"
            )
        return least, charged, most

    async def _check_leases(self) -> None:
        """As many calls at a time as the plan allows get in: no lease is left of anybody."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LEASES_END_S
        while True:
            calls = [
                Call(
                    "generate_stream",
                    (self._stack.steady, self._stack.hit)[number % 2].name,
                    f"main last {loop.time()} {number}",
                    8,
                    "main",
                )
                for number in range(CONCURRENT)
            ]
            await asyncio.gather(*(self._callers.call(call) for call in calls))
            limited = [call for call in calls if call.status == "429"]
            if not limited:
                return
            if loop.time() > end:
                self.problems.append(f"{len(limited)} leases are left: {limited[0].error}")
                return
            await asyncio.sleep(1)


def main() -> None:
    """The command; its exit status is 1 when anything happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--longest_s", type=float, default=900, help="bound on all faults together")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--calls", type=Path, help="file for every call, a line each")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.faults} faults", flush=True)
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        made = {plan: new_key(tenant=plan, plan=plan) for plan in ("main", "small")}
        (folder / "keys.yaml").write_text(key_file.dump([key for _, key in made.values()]))
        (folder / "plans.yaml").write_text(PLANS)
        stack = Stack(folder, folder / "keys.yaml", folder / "plans.yaml")
        exits.callback(stack.close)
        chaos = Chaos(stack, {plan: text for plan, (text, _) in made.items()}, seed)

        async def run() -> tuple[int, float, int]:
            await stack.start()
            await chaos.run(list(faults(seed, arguments.faults)), arguments.longest_s)
            return await chaos.books()

        least, charged, most = asyncio.run(run())
        calls = chaos.calls
    report = {
        "seed": seed,
        "faults": dict(sorted(chaos.applied.items())),
        "calls": len(calls),
        "outcomes": dict(chaos.outcomes),
        "charged": {"tokens": charged, "least": least, "most": most},
        "problems": chaos.problems,
    }
    if arguments.calls is not None:
        arguments.calls.write_text("".join(json.dumps(asdict(call)) + "\n" for call in calls))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    sys.exit(1 if chaos.problems else 0)


if __name__ == "__main__":
    main()
