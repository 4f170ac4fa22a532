"""LiteRT models behind KServe's model server, as its documentation tells to write one. Source: KServe docs, "Custom predictor".

kserve_litert.py PORT NAME=MODEL...
"""

import logging
import sys
import uuid

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from litert_models import NAMES, LiteRt


class LiteRtModel(Model):
    """Serves one model."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path
        self.ready = self.load()

    def load(self) -> bool:
        """Load the model."""
        self._model = LiteRt(self._path)
        return True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:  # noqa: ARG002 - KServe's
        """Run one inference."""
        tensor = payload.inputs[0]
        output = self._model.run(tensor.as_numpy().astype(self._model.input["dtype"], copy=False))
        answer = InferOutput(self._model.output["name"], list(output.shape), NAMES[output.dtype])
        wants_binary = bool((payload.parameters or {}).get("binary_data_output"))
        answer.set_data_from_numpy(output, binary_data=wants_binary)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [answer])


if __name__ == "__main__":
    port, *named = sys.argv[1:]
    logging.disable(logging.INFO)
    models = [LiteRtModel(name, path) for name, _, path in (each.partition("=") for each in named)]
    ModelServer(http_port=int(port), enable_grpc=False, enable_latency_logging=False).start(models)
