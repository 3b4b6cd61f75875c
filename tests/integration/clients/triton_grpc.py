"""tritonclient's gRPC client, unchanged: infer, stream, and an error in a stream. Prints JSON."""

import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton

address, model, prompt = sys.argv[1:]
client = triton.InferenceServerClient(address)
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(model)
assert client.get_model_metadata(model).name == model

tensor = triton.InferInput("text_input", [1], "BYTES")
tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object))
parameters = {"max_tokens": 24, "temperature": "0"}
whole = client.infer(model, [tensor], request_id="a1", parameters=parameters)
assert whole.get_response().id == "a1"

answers: queue.Queue = queue.Queue()
# A kept answer would come in one piece.
client.start_stream(
    lambda result, error: answers.put((result, error)), headers={"cache-control": "no-store"}
)
# An error first: it must not end the stream.
client.async_stream_infer(model, [tensor], parameters={"temprature": 1})
_, error = answers.get(timeout=60)
client.async_stream_infer(model, [tensor], request_id="s1", parameters=parameters)
pieces = []
while True:
    result, problem = answers.get(timeout=60)
    assert problem is None, problem
    pieces.append(result.as_numpy("text_output")[0].decode())
    if result.get_response().parameters["triton_final_response"].bool_param:
        break
client.stop_stream()
print(
    json.dumps(
        {
            "whole": whole.as_numpy("text_output")[0].decode(),
            "pieces": pieces,
            "error": str(error),
        }
    )
)
