"""What accelerators are: the kinds there are, what was found of each, what is missing and how to get it. Values only."""

from enum import Enum

from gatewayd.core.record import record


class Kind(Enum):
    """The accelerators that gatewayd looks for."""

    EDGETPU = "edgetpu"
    JETSON = "jetson"
    MOVIDIUS = "movidius"
    INTEL_GPU = "intel-gpu"
    INTEL_NPU = "intel-npu"


@record
class Found:
    """One piece of hardware: where it was seen, and what it still lacks to be used (each with how to get it)."""

    kind: Kind
    detail: str
    missing: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


ENGINE_HINTS = {
    Kind.EDGETPU: (
        "engines: [{name: litert, label: litert-edgetpu, delegate: {library: libedgetpu.so.1}, accelerator: edgetpu}], "
        "and a model compiled with edgetpu_compiler"
    ),
    Kind.JETSON: (
        "engines: [{name: onnxruntime, python: PYTHON, providers: [TensorrtExecutionProvider, CUDAExecutionProvider, "
        "CPUExecutionProvider], accelerator: jetson}] with NVIDIA's onnxruntime-gpu wheel for that JetPack in PYTHON"
    ),
    Kind.MOVIDIUS: (
        "engines: [{name: openvino, label: openvino-myriad, python: PYTHON, device: MYRIAD, accelerator: movidius}] with "
        "openvino==2022.3 (the last release that knows the stick; Python 3.7 to 3.10) in PYTHON"
    ),
    Kind.INTEL_GPU: "engines: [{name: openvino, label: openvino-gpu, python: PYTHON, device: GPU, accelerator: intel-gpu}]",
    Kind.INTEL_NPU: "engines: [{name: openvino, label: openvino-npu, python: PYTHON, device: NPU, accelerator: intel-npu}]",
}
"""What to write into the config to use a kind."""
