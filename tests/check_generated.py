"""Fails when a checked-in generated file differs from what its generator makes now."""

import sys
import tempfile
from pathlib import Path

from openinference.proto.generate import generate

SOURCES = Path(__file__).parents[1] / "protocol"
GENERATED = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        generate(SOURCES, Path(folder))
        stale = [
            name
            for name in GENERATED
            if (SOURCES / "openinference/proto" / name).read_text()
            != (Path(folder) / "openinference/proto" / name).read_text()
        ]
    if stale:
        print(f"out of date: {', '.join(stale)}; run make generate", file=sys.stderr)
        return 1
    print("generated files are current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
