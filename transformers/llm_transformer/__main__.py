"""`python -m llm_transformer`: serves REST and gRPC in front of one predictor until SIGTERM."""

import signal
import sys


def main() -> None:
    """The command."""
    # As PID 1 of a container a process without a handler does not get SIGTERM at all, and the
    # imports below take seconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from llm_transformer import server

    server.main()


if __name__ == "__main__":
    main()
