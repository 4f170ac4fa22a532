"""What an inference engine of the node is: which program, in which environment, on which piece of hardware. Values only."""

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from gatewayd.core.record import record


class Format(Enum):
    """The model files there are."""

    TFLITE = "tflite"
    ONNX = "onnx"


_READS: Mapping[str, tuple[Format, ...]] = {
    "litert": (Format.TFLITE,),
    "tflite-runtime": (Format.TFLITE,),
    "tflm": (Format.TFLITE,),
    "onnxruntime": (Format.ONNX,),
    "openvino": (Format.TFLITE, Format.ONNX),
}
_TFLITE_MAGIC = b"TFL3"  # Source: tensorflow/compiler/mlir/lite/schema/schema.fbs, file_identifier
_ONNX_START = b"\x08"  # Source: onnx/onnx.proto3, ModelProto.ir_version: field 1, varint, which writers put first


def format_of(content: bytes) -> Format:
    """Tell the format of a model file by its beginning: a flatbuffer names itself, ONNX begins with its ir_version.

    What is neither is taken for TFLite, whose reader says what is wrong with it.
    """
    is_onnx = content[:1] == _ONNX_START and content[4:8] != _TFLITE_MAGIC
    return Format.ONNX if is_onnx else Format.TFLITE


@record
class EngineSpec:
    """An engine (litert, tflite-runtime, tflm, onnxruntime, openvino) as the config names it.

    `python` is the interpreter whose packages hold it (None: the daemon's own), `label` what it is called where two
    entries use one engine ("": its name). `delegate` is a TFLite delegate's library with its options, `providers` ONNX Runtime's
    execution providers in order of preference, `device` OpenVINO's device. `accelerator` is the kind of hardware that it
    needs ("": none): without it the engine is not used.
    """

    name: str
    python: str | None = None
    label: str = ""
    delegate: str = ""
    delegate_options: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    device: str = ""
    accelerator: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    def reads(self, kind: Format) -> bool:
        """Tell whether the engine loads files of that format."""
        return kind in _READS.get(self.name, ())

    def options(self) -> dict[str, object]:
        """Return what the worker is told."""
        given = {
            "delegate": self.delegate,
            "delegate_options": dict(self.delegate_options),
            "providers": list(self.providers),
            "device": self.device,
        }
        return {name: value for name, value in given.items() if value}
