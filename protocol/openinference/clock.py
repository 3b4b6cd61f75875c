"""The clock of deadlines and ages: the event loop's (time.monotonic), read without the loop.

`now()` is in seconds, comparable with any event loop's `time()`. On Python 3.11 asking which loop
runs costs a system call and ten times as much as the time.
"""

from time import monotonic as now

__all__ = ["now"]
