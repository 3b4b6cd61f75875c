"""MLServer with a model that answers each text with itself."""

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        texts = StringCodec.decode_input(tensor)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[StringCodec.encode_output("text_output", texts, use_bytes=False)],
        )
