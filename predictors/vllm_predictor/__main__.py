"""`python -m vllm_predictor`: serves a model on V2 REST and gRPC until SIGTERM."""

import gc
import signal
import sys

HELP = {"-h", "--help"}


def main() -> None:
    """The command."""
    # As PID 1 of a container a process without a handler does not get SIGTERM at all, and the
    # imports below take seconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Imports leave no garbage, and looking for it is a fifth of their time; on again when ready.
    gc.disable()
    from vllm_predictor.early_process import EarlyProcess

    early = EarlyProcess()
    if not HELP & set(sys.argv):
        early.begin()
    from vllm_predictor import server

    server.main(early)


if __name__ == "__main__":
    main()
