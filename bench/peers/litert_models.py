"""One TFLite model behind numpy arrays: what every peer of the node benchmark runs, in the same way and on one thread."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]  # it ships no types

DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "FP32": np.float32}
NAMES = {np.dtype(kind): name for name, kind in DTYPES.items()}


class LiteRt:
    """A loaded interpreter. Not for two threads at once."""

    def __init__(self, path: str) -> None:
        self._interpreter = Interpreter(model_path=path, num_threads=1)
        self._interpreter.allocate_tensors()
        self.input = self._interpreter.get_input_details()[0]
        self.output = self._interpreter.get_output_details()[0]

    def run(self, values: np.ndarray) -> np.ndarray:
        """Run one inference; `values` are in the model's own dtype, any shape of the right size."""
        self._interpreter.set_tensor(self.input["index"], values.reshape(self.input["shape"]))
        self._interpreter.invoke()
        found: np.ndarray = self._interpreter.get_tensor(self.output["index"])
        return found
