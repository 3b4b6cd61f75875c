"""KServe's REST and gRPC clients, unchanged. Prints JSON."""

import asyncio
import json
import sys

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, grpc_address, model, prompt = sys.argv[1:]


def request(parameters: dict[str, object]) -> InferRequest:
    tensor = InferInput("text_input", [1], "BYTES", [prompt])
    return InferRequest(model, [tensor], request_id="a1", parameters=parameters)


async def main() -> None:
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    grpc = InferenceGRPCClient(grpc_address, timeout=60)
    assert await rest.is_server_live(url)
    assert await rest.is_server_ready(url)
    assert await rest.is_model_ready(url, model)
    assert await grpc.is_server_live()
    assert await grpc.is_model_ready(model)
    over_rest = await rest.infer(
        url, request({"max_tokens": 24, "temperature": 0}), model_name=model
    )
    over_grpc = await grpc.infer(request({"max_tokens": 24, "temperature": 0}))
    text = over_grpc.outputs[0].data[0]
    print(
        json.dumps(
            {
                "rest": over_rest.outputs[0].data[0],
                "grpc": text.decode() if isinstance(text, bytes) else text,
                "ids": [over_rest.id, over_grpc.id],
            }
        )
    )
    await rest.close()
    await grpc.close()


asyncio.run(main())
