"""The predictor: a KServe-compatible process with a vLLM engine behind V2 REST and gRPC."""
