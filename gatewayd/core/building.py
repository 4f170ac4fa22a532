"""Building variants: what a compiler plugin is asked, what came out, and how a target's name leads to a plugin.

Values and decisions only; the programs run in `gatewayd.adapters.compilers`.
"""

import json
from collections.abc import Sequence
from hashlib import sha256

from gatewayd.core.device import Capabilities
from gatewayd.core.engine import Format
from gatewayd.core.errors import BadRequest
from gatewayd.core.model import Structure, Variant, Version
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.core.tensor import DType

INT8 = "int8"
ETHOS_U = "ethos-u"

NPU_OPERATOR = "ethos-u"
"""The custom operator that stands for all that runs on the NPU. Source: ethos-u-vela, tflite_writer.py."""

NPU_CONFIGS = (
    "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512",
    "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
)  # fmt: skip
"""The accelerators that Vela compiles for: generation, then multiply-accumulates per cycle. Source: `vela --help`, 5.2."""

TARGETS = (INT8, *NPU_CONFIGS)


@record
class Recipe:
    """How to make the variant `variant`: which plugin, from which variant, with which options."""

    variant: str
    plugin: str
    source: Variant
    options: tuple[tuple[str, str], ...] = ()


@record
class Compiled:
    """What a plugin made: the new artifact's bytes, and one line on what it did."""

    content: bytes
    report: str


@record
class Build:
    """A result by its key, the digest of (input, samples, plugin, version, options)."""

    key: Digest
    artifact: Digest
    report: str


def build_key(recipe: Recipe, *, plugin_version: str, samples: Digest | None) -> Digest:
    """Return the digest of everything that decides what comes out."""
    parts = [recipe.source.digest, samples or "", recipe.plugin, plugin_version, sorted(recipe.options)]
    return Digest(sha256(json.dumps(parts).encode()).hexdigest())


def target_of(capabilities: Capabilities) -> str:
    """Return the target class of a device: its NPU's configuration, or int8 for a plain core."""
    return capabilities.accelerator or INT8


def recipe(version: Version, target: str) -> Recipe:
    """Choose plugin and source variant. Raises: BadRequest when there is no such target or nothing to build from."""
    if target == INT8:
        return Recipe(f"tflite-{INT8}", INT8, _source(version, target, (DType.FP32,)))
    if target in NPU_CONFIGS:
        source = _source(version, target, (DType.INT8, DType.INT16, DType.UINT8))
        return Recipe(target, ETHOS_U, source, (("accelerator-config", target),))
    raise BadRequest(f"for: {target[:80]!r} is neither a known device nor a target; targets are {', '.join(TARGETS)}")


def is_source(variant: Variant) -> bool:
    """Tell whether plugins can read the variant: they take TFLite files that no plugin has compiled for an NPU yet."""
    return not variant.name.startswith(f"{Format.ONNX.value}-") and not is_for_npu(variant.structure)


def is_for_npu(structure: Structure) -> bool:
    """Tell whether an Ethos-U must be there to run it."""
    return any(operator.name == NPU_OPERATOR for operator in structure.operators)


def _source(version: Version, target: str, dtypes: Sequence[DType]) -> Variant:
    for dtype in dtypes:
        for variant in version.variants:
            is_kind = all(spec.dtype is dtype for spec in variant.structure.inputs)
            if is_kind and is_source(variant):
                return variant
    wanted = "a float32" if DType.FP32 in dtypes else "an integer"
    remedy = "" if DType.FP32 in dtypes else f": build {version} for int8 first"
    raise BadRequest(f"{version} has no variant to build {target} from: it takes {wanted} one{remedy}")
