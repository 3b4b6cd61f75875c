"""`make fuzz`: each target for a while, one after the other; a table of executions and findings."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from targets import DECODERS

HERE = Path(__file__).parent
EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")
COVERED = re.compile(r" cov: (\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="most executions of each target")
    parser.add_argument("--folder", default="build/fuzz", help="keeps corpus and findings")
    arguments = parser.parse_args()
    names = arguments.targets or [decoder.__name__ for decoder in DECODERS]
    total, broken = 0, []
    print(f"{'target':<18}{'executions':>12}{'covered':>9}  result")
    for target in names:
        done = subprocess.run(
            [
                *(sys.executable, HERE / "run.py", target, arguments.folder),
                *(f"-max_total_time={arguments.seconds}", f"-runs={arguments.runs}"),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        executed = EXECUTED.search(done.stderr)
        count = int(executed.group(1)) if executed else 0
        total += count
        if done.returncode:
            broken.append(target)
            print(done.stderr[-4000:], file=sys.stderr)
        covered = COVERED.findall(done.stderr)
        print(
            f"{target:<18}{count:>12}{covered[-1] if covered else '-':>9}  "
            f"{'BROKEN' if done.returncode else 'no finding'}",
            flush=True,
        )
    print(f"{'all':<18}{total:>12}{'':>9}  {', '.join(broken) or 'no finding'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
