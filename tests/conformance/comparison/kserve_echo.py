"""KServe's stock server with a model that answers each text with itself.

Written as a careful user would: the model checks which tensor it got and raises KServe's own error,
and gives the id that KServe's answer must have.
"""

import uuid

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput


class Echo(Model):
    def __init__(self):
        super().__init__("echo")
        self.ready = True

    def get_input_types(self):
        return [{"name": "text_input", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self):
        return [{"name": "text_output", "datatype": "BYTES", "shape": [-1]}]

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):
        if [(t.name, t.datatype) for t in payload.inputs] != [("text_input", "BYTES")]:
            raise InvalidInput("inputs must be text_input, of BYTES")
        texts = payload.inputs[0].as_numpy()
        output = InferOutput("text_output", list(texts.shape), "BYTES")
        output.set_data_from_numpy(texts, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or uuid.uuid4().hex,
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer().start([Echo()])
