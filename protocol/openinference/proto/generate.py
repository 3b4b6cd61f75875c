"""Generates `inference_pb2.py`, its type stubs and `inference_pb2_grpc.py` from `inference.proto`.

`python -m openinference.proto.generate OUT` writes them below OUT (a copy of `protocol/`);
`make check` compares that with what is checked in.
"""

import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = "openinference/proto/inference.proto"
DEFAULT_POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool"
OWN_POOL_IMPORT = "from openinference.proto import _pool as _descriptor_pool"


def generate(source_root: Path, out: Path) -> None:
    """Runs protoc on `PROTO` below `source_root`; raises RuntimeError when it fails."""
    out.mkdir(parents=True, exist_ok=True)
    mypy_plugin = Path(sysconfig.get_path("scripts"), "protoc-gen-mypy")
    status = protoc.main(
        [
            "protoc",
            f"-I{source_root}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={mypy_plugin}",
            f"--python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--grpc_python_out={out}",
            PROTO,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc failed with status {status} on {PROTO}")
    module = out / PROTO.replace(".proto", "_pb2.py")
    text = module.read_text()
    if text.count(DEFAULT_POOL_IMPORT) != 1:
        raise RuntimeError(f"{module.name} does not import the default descriptor pool as expected")
    module.write_text(text.replace(DEFAULT_POOL_IMPORT, OWN_POOL_IMPORT))


if __name__ == "__main__":
    generate(Path(__file__).parents[2], Path(sys.argv[1]))
