"""Third-party clients with an API key, by their own options for it. Prints their texts as JSON.

Two groups, each in a process of its own: KServe and tritonclient register the same protobuf names.
"""

import asyncio
import json
import sys
from typing import Any

group, http_address, grpc_address, model, prompt, key = sys.argv[1:]
BEARER = {"authorization": f"Bearer {key}"}
PARAMETERS = {"max_tokens": 24, "temperature": 0}


def openai_text() -> str:
    import openai

    client = openai.OpenAI(base_url=f"http://{http_address}/v1", api_key=key, max_retries=0)
    done = client.completions.create(model=model, prompt=prompt, max_tokens=24, temperature=0)
    return done.choices[0].text


def triton_text(module: Any, address: str, headers: dict[str, str]) -> str:
    import numpy as np

    tensor = module.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object))
    client = module.InferenceServerClient(address)
    result = client.infer(model, [tensor], headers=headers, parameters=PARAMETERS)
    return result.as_numpy("text_output")[0].decode()


async def kserve_texts() -> dict[str, str]:
    from kserve import (
        InferenceGRPCClient,
        InferenceRESTClient,
        InferInput,
        InferRequest,
        RESTConfig,
    )

    def request() -> Any:
        return InferRequest(
            model, [InferInput("text_input", [1], "BYTES", [prompt])], parameters=PARAMETERS
        )

    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    grpc = InferenceGRPCClient(grpc_address, timeout=60)
    url = f"http://{http_address}"
    over_rest = await rest.infer(url, request(), model_name=model, headers={"x-api-key": key})
    over_grpc = await grpc.infer(request(), headers=(("x-api-key", key),))
    await rest.close()
    await grpc.close()
    text = over_grpc.outputs[0].data[0]
    return {
        "rest": over_rest.outputs[0].data[0],
        "grpc": text.decode() if isinstance(text, bytes) else text,
    }


if group == "kserve":
    texts = asyncio.run(kserve_texts())
else:
    import tritonclient.grpc
    import tritonclient.http

    texts = {
        "openai": openai_text(),
        "http": triton_text(tritonclient.http, http_address, dict(BEARER)),
        "grpc": triton_text(tritonclient.grpc, grpc_address, dict(BEARER)),
    }
print(json.dumps(texts))
