"""gRPC with bytes in and bytes out: grpcio carries them, `protobuf` reads and writes them."""

import grpc

from v2probe import protobuf

SERVICE = "inference.GRPCInferenceService"
TIMEOUT_S = 60.0
# The method's name: what it takes and what it gives.
METHODS = {
    "ServerLive": ("empty", "live"),
    "ServerReady": ("empty", "ready"),
    "ModelReady": ("model", "ready"),
    "ServerMetadata": ("empty", "server_metadata"),
    "ModelMetadata": ("model", "model_metadata"),
    "ModelInfer": ("infer_request", "infer_response"),
    "RepositoryIndex": ("index_request", "index_response"),
    "RepositoryModelUnload": ("unload_request", "empty"),
}


class Grpc:
    """A server's gRPC side."""

    def __init__(self, target: str, metadata: list[tuple[str, str]]) -> None:
        self.channel = grpc.insecure_channel(
            target,
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )
        self.metadata = [(name.lower(), value) for name, value in metadata]

    def call(self, method: str, value: dict | bytes, metadata=()) -> dict:
        """A unary call of the V2 service; raises grpc.RpcError."""
        takes, gives = METHODS[method]
        message = value if isinstance(value, bytes) else protobuf.encode(takes, value)
        return protobuf.decode(gives, self.call_raw(f"/{SERVICE}/{method}", message, metadata))

    def call_raw(self, path: str, message: bytes, metadata=()) -> bytes:
        unary = self.channel.unary_unary(path)
        return unary(message, timeout=TIMEOUT_S, metadata=[*self.metadata, *metadata])

    def stream(self, messages):
        """Sends these on one ModelStreamInfer and yields its answers."""
        encoded = (
            m if isinstance(m, bytes) else protobuf.encode("infer_request", m) for m in messages
        )
        call = self.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        for answer in call(encoded, timeout=TIMEOUT_S, metadata=self.metadata):
            yield protobuf.decode("stream_response", answer)

    def code(self, method: str, value: dict | bytes) -> str:
        """The status of a call, by name."""
        try:
            self.call(method, value)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def offers(self, path: str, message: bytes) -> bool:
        """Whether the server implements this method."""
        try:
            self.call_raw(path, message)
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.UNIMPLEMENTED
        return True
