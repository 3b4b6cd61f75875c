"""MLServer with a model that answers each text with itself.

Written as a careful user would: the model checks which tensor it got and raises MLServer's error.
"""

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if [(t.name, t.datatype) for t in payload.inputs] != [("text_input", "BYTES")]:
            raise InferenceError("inputs must be text_input, of BYTES")
        texts = StringCodec.decode_input(payload.inputs[0])
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[StringCodec.encode_output("text_output", texts, use_bytes=False)],
        )
