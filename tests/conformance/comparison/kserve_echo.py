"""KServe's stock server with a model that answers each text with itself."""

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Echo(Model):
    def __init__(self):
        super().__init__("echo")
        self.ready = True

    def get_input_types(self):
        return [{"name": "text_input", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self):
        return [{"name": "text_output", "datatype": "BYTES", "shape": [-1]}]

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):
        texts = payload.get_input_by_name("text_input").as_numpy()
        output = InferOutput("text_output", list(texts.shape), "BYTES")
        output.set_data_from_numpy(texts, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id,
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer().start([Echo()])
