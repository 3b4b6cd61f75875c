"""`keepwarm kpa verify`: both engines against recordings of Knative's own autoscaler."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepwarm.kpa import open_loop, recording, tables
from keepwarm.kpa.closed_loop import ClusterLoop
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.recording import COLUMNS, ClosedLoop, OpenLoop
from keepwarm.kpa.tables import same
from keepwarm.kpa.twin import Core


@dataclass(slots=True)
class Tally:
    """Rows of one file by one engine; `mismatch` tells the first that differs.

    Without an engine the file holds nothing that can be replayed.
    """

    path: Path
    engine: str
    compared: int = 0
    matched: int = 0
    mismatch: str = ""

    def compare(self, what: str, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
        """Row by row; a missing or an extra row is a mismatch."""
        for number in range(max(len(ours), len(theirs))):
            mine = ours[number] if number < len(ours) else "nothing"
            knative = theirs[number] if number < len(theirs) else "nothing"
            self.row(f"{what} row {number}", mine, knative)

    def row(self, what: str, mine: Any, knative: Any) -> None:
        """One row."""
        self.compared += 1
        if same(mine, knative):
            self.matched += 1
        elif not self.mismatch:
            self.mismatch = f"{what}: Knative {knative}, twin {mine}"


def verify(folder: Path, cores: Sequence[Core]) -> Iterator[Tally]:
    """One tally per file and engine, files by name. Raises InputError without recordings."""
    paths = sorted(path for path in folder.rglob("*") if path.name.endswith(recording.SUFFIXES))
    found = False
    for path in paths:
        content = recording.load(path)
        if traces := recording.parse(path.name, content):
            for core in cores:
                found = True
                yield _traces(Tally(path, core.name), traces, core)
        elif isinstance(content, dict) and (rows := list(tables.answers(content))):
            found = True
            tally = Tally(path, "tables")
            for asked, ours, theirs in rows:
                tally.row(json.dumps(asked), ours, theirs)
            yield tally
        else:
            yield Tally(path, "")
    if not found:
        raise InputError(f"There is no recording (*.json, *.json.gz) in {folder}.")


def _traces(tally: Tally, traces: Sequence[ClosedLoop | OpenLoop], core: Core) -> Tally:
    for trace in traces:
        if isinstance(trace, OpenLoop):
            tally.compare(trace.name, open_loop.fuzz_rows(trace, core), trace.ticks)
            continue
        tally.compare("(a) ticks", open_loop.decider_rows(trace, core), trace.ticks)
        tally.compare("(b) recon", open_loop.reconciler_rows(trace, core), trace.recon)
        replay = ClusterLoop(trace, core).run()
        for column in COLUMNS:
            tally.compare(f"(c) {column}", getattr(replay, column), getattr(trace, column))
    return tally
