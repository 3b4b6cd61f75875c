"""The page of results: a table by level, one by rule, and the cases in which a server fails."""

from collections import Counter

LEVELS = {
    "MUST": "the protocol, and extensions that the server offers",
    "HTTP": "RFC 9110 and 9112",
    "PEER": "what common clients rely on",
    "ROBUST": "bad input is refused, nothing hangs or breaks",
    "SEC": "what an attacker would try",
}
MARKS = {"passed": "yes", "failed": "**no**", "skipped": "-"}

HEAD = """# Conformance to the V2 protocol

Made by `make conformance-table`, which starts four servers on one machine and runs
[the suite](../tests/conformance/README.md) against each: our transformer in front of our predictor,
that predictor, KServe's stock server and MLServer, all with a model that answers each text with
itself. A case that a server does not offer and does not claim is counted as *not offered*, never as
passed. An error whose body is not `{"error": "..."}` (R14) fails the case in which it is seen. The
suite is ours: each case is named after the rule that it comes from, so that it can be disputed.
`make test` fails when one of our two servers fails a case.

MLServer streams and generates only with a model that does so itself, which the echo does not: its
rows G7 and S1 to S5 say no more than that.

"""


def page(columns) -> str:
    """The page; `columns` are (name, software, results by case)."""
    names = [name for name, _, _ in columns]
    return "\n".join(
        [
            HEAD + _row("", *names),
            _rule(len(names)),
            _row("software", *(software for _, software, _ in columns)),
            "",
            "## By level: passed of those offered",
            "",
            _row("level", *names),
            _rule(len(names)),
            *_by_level(columns),
            "",
            "## By rule: passed of those offered",
            "",
            _row("rule", *names),
            _rule(len(names)),
            *_by_rule(columns),
            "",
            "## Every case that a server fails",
            "",
            _row("case", *names),
            _rule(len(names)),
            *_failed(columns),
            "",
        ]
    )


def _row(*cells) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns) -> str:
    return "|---" * (columns + 1) + "|"


def _tally(results) -> str:
    counts = Counter(result["outcome"] for result in results)
    offered = counts["passed"] + counts["failed"]
    text = f"{counts['passed']}/{offered}" if offered else "-"
    return f"{text} ({counts['skipped']} not offered)" if counts["skipped"] and offered else text


def _by_level(columns):
    for level, meaning in LEVELS.items():
        yield _row(
            f"{level}: {meaning}",
            *(
                _tally([r for r in results.values() if r["level"] == level])
                for _, _, results in columns
            ),
        )
    yield _row("all", *(_tally(results.values()) for _, _, results in columns))


def _by_rule(columns):
    rules = {result["rule"] for _, _, results in columns for result in results.values()}
    for rule in sorted(rules, key=lambda rule: (rule[0], int(rule[1:]))):
        yield _row(
            rule,
            *(
                _tally([r for r in results.values() if r["rule"] == rule])
                for _, _, results in columns
            ),
        )


def _failed(columns):
    cases = sorted({case for _, _, results in columns for case in results})
    for case in cases:
        outcomes = [results.get(case, {"outcome": "skipped"})["outcome"] for *_, results in columns]
        if "failed" in outcomes:
            name = case.replace("|", "\\|")
            yield _row(f"`{name}`", *(MARKS[outcome] for outcome in outcomes))
