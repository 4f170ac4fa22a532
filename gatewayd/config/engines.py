"""The config's sections about inference engines and accelerators."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from gatewayd.config.types import FilePath, Seconds, Section, one_level


class Delegate(Section):
    """A TFLite delegate: a shared library, by path or by a name that the dynamic linker finds, and what it is told."""

    library: Annotated[str, Field(min_length=1, max_length=4096)]
    options: dict[str, str] = Field({}, max_length=32)


class Engine(Section):
    """An inference engine of the node. `python` null: the daemon's own interpreter; `label` null: its name."""

    name: Literal["litert", "tflite-runtime", "onnxruntime", "openvino"]
    label: Annotated[str, AfterValidator(one_level)] | None = None
    python: FilePath | None = None
    delegate: Delegate | None = None
    providers: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field((), max_length=8, strict=False)
    device: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    accelerator: Literal["edgetpu", "jetson", "movidius", "intel-gpu", "intel-npu"] | None = None

    @field_validator("delegate")
    @classmethod
    def _is_of_tflite(cls, delegate: Delegate | None, info: ValidationInfo) -> Delegate | None:
        if delegate is not None and info.data.get("name") not in {None, "litert", "tflite-runtime"}:
            raise ValueError("goes with litert and tflite-runtime only")
        return delegate

    @field_validator("providers")
    @classmethod
    def _are_of_onnx(cls, providers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if providers and info.data.get("name") not in {None, "onnxruntime"}:
            raise ValueError("go with onnxruntime only")
        return providers

    @field_validator("device")
    @classmethod
    def _is_of_openvino(cls, device: str | None, info: ValidationInfo) -> str | None:
        if device is not None and info.data.get("name") not in {None, "openvino"}:
            raise ValueError("goes with openvino only")
        return device


def differ(engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
    """Check that every engine has a label of its own. Raises: ValueError naming the one that is there twice."""
    labels = [engine.label or engine.name for engine in engines]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two entries are called {label!r}: give each a label of its own")
    return engines


class Accelerators(Section):
    """Finding accelerators: where the machine's files are read (`root` null: /), how often, and whether at all."""

    enabled: bool = True
    root: FilePath | None = None
    scan_every_s: Seconds = 10.0
