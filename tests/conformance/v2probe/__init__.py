"""The suite's own clients: HTTP/1.1 over raw sockets, protobuf by hand, gRPC with bytes."""
