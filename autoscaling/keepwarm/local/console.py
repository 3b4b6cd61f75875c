"""What the supervisor prints: each server's lines under its name, and one line of progress."""

import sys
from typing import TextIO

WIDTH = 11
_COLOURS = {"predictor": "\x1b[35m", "transformer": "\x1b[36m", "keepwarm": "\x1b[1m"}
_RESET = "\x1b[0m"
_CLEAR_LINE = "\r\x1b[K"


class Console:
    """Prints lines; on a terminal in colour, with the progress line rewritten in place."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._progress = ""

    def line(self, source: str, text: str) -> None:
        """Prints one line of `source`."""
        prefix = f"{source:<{WIDTH}} |"
        if self._terminal:
            prefix = f"{_COLOURS.get(source, '')}{prefix}{_RESET}"
        self._write(f"{prefix} {text}\n", self._progress)

    def progress(self, text: str) -> None:
        """Shows what is going on now; without a terminal, a line when it changes its first word."""
        if self._terminal:
            self._write("", text)
        elif text.split(" ", 1)[0] != self._progress.split(" ", 1)[0]:
            self._stream.write(f"{'keepwarm':<{WIDTH}} | {text}\n")
            self._stream.flush()
        self._progress = text

    def end_progress(self) -> None:
        """Takes the progress line away."""
        if self._terminal and self._progress:
            self._write("", "")
        self._progress = ""

    def text(self, text: str) -> None:
        """Prints text as it is."""
        self._write(f"{text}\n", self._progress)

    def _write(self, lines: str, progress: str) -> None:
        if self._terminal:
            self._stream.write(f"{_CLEAR_LINE}{lines}{progress}")
        else:
            self._stream.write(lines)
        self._stream.flush()
