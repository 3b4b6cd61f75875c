"""What is wrong with a trace: the source, the line, the reason and what is allowed."""


class TraceError(ValueError):
    """A sentence for the user. `place` is a file's line or a series' sample, where one is known."""

    def __init__(self, source: str, reason: str, *, place: str | None = None) -> None:
        super().__init__(f"{source}, {place}: {reason}" if place else f"{source}: {reason}")
        self.source = source
        self.place = place
        self.reason = reason
