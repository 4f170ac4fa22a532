"""Making inference modules: the manifest of a version's variant, and the bytes that a device is sent."""

from gatewayd.core.fit import TFLITE_SCHEMA
from gatewayd.core.model import Variant, Version
from gatewayd.core.module import Encoding, Manifest


def manifest_of(version: Version, variant: Variant, encoding: Encoding) -> Manifest:
    """Return what a device must know of the variant before a byte of it comes."""
    return Manifest(
        model=version.model,
        version=version.number,
        target=variant.name,
        digest=variant.digest,
        size_bytes=variant.size_bytes,
        encoding=encoding,
        runtime_abi=TFLITE_SCHEMA,
        operators=tuple(sorted({operator.name for operator in variant.structure.operators})),
        arena_bytes=variant.arena_bytes or 0,
        inputs=variant.structure.inputs,
        outputs=variant.structure.outputs,
        self_test=variant.self_test,
    )
