"""A LiteRT runtime for MLServer, as its documentation tells to write one. Source: MLServer docs, "Custom runtimes"."""

from litert_models import LiteRt
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class LiteRtRuntime(MLModel):
    """Serves the model that `parameters.uri` of its settings names."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = LiteRt(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one inference."""
        values = NumpyCodec.decode_input(payload.inputs[0]).astype(self._model.input["dtype"], copy=False)
        output = self._model.run(values)
        encoded = NumpyCodec.encode_output(self._model.output["name"], output)
        return InferenceResponse(model_name=self.name, model_version="1", outputs=[encoded])
