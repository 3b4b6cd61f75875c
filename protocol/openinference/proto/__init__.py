"""The V2 gRPC service as protobuf: `inference.proto` and what `make generate` makes of it.

The generated module keeps its messages in a descriptor pool of its own: KServe and tritonclient
register the same message names in the default pool, and one process may hold all of them.
"""
