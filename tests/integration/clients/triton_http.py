"""tritonclient's HTTP client, unchanged: JSON and binary tensors. Prints JSON."""

import json
import sys

import numpy as np
import tritonclient.http as triton

address, model, prompt = sys.argv[1:]
client = triton.InferenceServerClient(address)
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(model)
metadata = client.get_model_metadata(model)


def text(result: triton.InferResult) -> str:
    # tritonclient gives JSON strings as str and binary elements as bytes.
    (element,) = result.as_numpy("text_output")
    return element if isinstance(element, str) else element.decode()


def infer(*, binary: bool, **options: object) -> str:
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object), binary_data=binary)
    result = client.infer(
        model,
        [tensor],
        outputs=[triton.InferRequestedOutput("text_output", binary_data=binary)],
        request_id="a1",
        parameters={"max_tokens": 24, "temperature": 0.0},
        **options,
    )
    assert result.get_response()["id"] == "a1"
    return text(result)


tensor = triton.InferInput("text_input", [1], "BYTES")
tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object))
all_outputs = client.infer(model, [tensor], parameters={"max_tokens": 24, "temperature": 0.0})
print(
    json.dumps(
        {
            "server": client.get_server_metadata()["name"],
            "inputs": [tensor["name"] for tensor in metadata["inputs"]],
            "json": infer(binary=False),
            "binary": infer(binary=True),
            "gzip": infer(binary=True, request_compression_algorithm="gzip"),
            "deflate": infer(binary=True, request_compression_algorithm="deflate"),
            "all_outputs": text(all_outputs),
        }
    )
)
