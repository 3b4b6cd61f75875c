"""`make bench-compare`: whether a request, a hit or a token has become dearer than it landed.

A short run of what matters, each as a ratio of CPU time to a floor in the same repetition: a ratio
of CPU times bears another machine and other work on it, a rate does not. `--land` keeps the figures
in landed.json, which the next comparison holds its own against.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import cache_hit
import regress
import uvloop
from contenders import FLOOR, OURS, PROXY
from hop import rig_of
from hop import sample as hop_sample
from report import cell, keep, ratio, table, where
from rig import Rig
from streams import GENERATE, LONG, Load
from streams import sample as stream_sample

LANDED = Path(__file__).parent / "landed.json"
# CPU ratios of one build on one machine spread by about a tenth; this is added to that spread.
MARGIN = 0.10
V2 = "V2 infer"
STREAMS = Load(GENERATE, 16, LONG)
CONNECTIONS = 16
FIRST_WARM_UP_S = 1.0


async def hop_figures(
    rig: Rig, repetitions: int, seconds: float
) -> tuple[dict[str, list[float]], int]:
    """CPU of a request and of a token through ours, in those of a floor; and wrong answers."""
    names = (FLOOR, PROXY, OURS)
    for name in names:
        await hop_sample(rig, V2, name, CONNECTIONS, FIRST_WARM_UP_S)
    figures: dict[str, list[float]] = {}
    errors = 0
    for _ in range(repetitions):
        hops = {name: await hop_sample(rig, V2, name, CONNECTIONS, seconds) for name in names}
        streams = {name: await stream_sample(rig, STREAMS, name, seconds) for name in (PROXY, OURS)}
        errors += sum(s.errors for s in hops.values()) + sum(s.errors for s in streams.values())
        for name, value in {
            f"CPU of a V2 infer, everything on and the cache missed, in a {FLOOR} answer's": ratio(
                hops[OURS].server_us, hops[FLOOR].server_us
            ),
            f"CPU of a V2 infer, everything on and the cache missed, in a {PROXY}'s": ratio(
                hops[OURS].server_us, hops[PROXY].server_us
            ),
            f"CPU of a streamed token, in a {PROXY}'s": ratio(
                streams[OURS].server_us, streams[PROXY].server_us
            ),
        }.items():
            figures.setdefault(name, []).append(value)
    return figures, errors


def measure(repetitions: int, seconds: float) -> tuple[dict[str, list[float]], int]:
    """All figures of this build, and how many answers were wrong."""
    with ExitStack() as stack:
        figures, errors = uvloop.run(
            hop_figures(rig_of(stack, (FLOOR, PROXY, OURS)), repetitions, seconds)
        )
    with ExitStack() as stack:
        hits = uvloop.run(cache_hit.compare(cache_hit.Rig(stack), repetitions, seconds))
    for name, pairs in hits.items():
        figures[f"CPU of a cache hit, {name}, in a bare answer's"] = [
            ratio(hit.server_us, floor.server_us) for hit, floor in pairs
        ]
        errors += sum(each.errors for pair in pairs for each in pair)
    return figures, errors


def main() -> None:
    """The command; its exit status is 1 when something is worse or an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--margin", type=float, default=MARGIN, help="share above what landed")
    parser.add_argument("--land", action="store_true", help="keep the figures as what landed")
    arguments = parser.parse_args()
    now, errors = measure(arguments.repetitions, arguments.seconds)
    landed = regress.read(LANDED) if LANDED.exists() and not arguments.land else {}
    rows = [(name, cell(of, 2), cell(landed.get(name, []), 2)) for name, of in now.items()]
    print(f"{where()}\n\n{table(('figure', 'now', 'landed'), rows)}\n")
    if errors:
        sys.exit(f"{errors} answers were wrong; nothing is compared")
    if arguments.land:
        keep(LANDED, figures={name: [round(v, 3) for v in of] for name, of in now.items()})
        return
    for name in regress.better(now, landed, arguments.margin):
        print(f"better than what landed: {name}; run make bench-land")
    sentences = regress.worse(now, landed, arguments.margin)
    print("\n".join(sentences) or "nothing is worse than what landed")
    sys.exit(1 if sentences else 0)


if __name__ == "__main__":
    main()
