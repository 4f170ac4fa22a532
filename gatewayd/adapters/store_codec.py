"""Nested values of the registry as JSON text and back, each with an explicit pair of functions.

What the store wrote is trusted to have this shape; anything else raises KeyError, TypeError, IndexError or ValueError, which
the store reports as a damaged database.
"""

import json
from typing import NotRequired, TypedDict

from gatewayd.core.model import About, Forecast, Operator, Place, SelfTest, Signature, Structure, Vector, Verdict
from gatewayd.core.tensor import DType, Quantization, TensorSpec


class _Spec(TypedDict):
    name: str
    dtype: str
    shape: list[int]
    quantization: tuple[float, int] | None


class _Forecast(TypedDict):
    host_bytes: int | None
    cortex_m_bytes: int | None
    cmsis_nn_bytes: int | None
    reason: str
    objections: list[str]


class _Structure(TypedDict):
    operators: list[tuple[str, int, int]]
    inputs: list[_Spec]
    outputs: list[_Spec]
    macs: int
    weights_bytes: int
    forecast: NotRequired[_Forecast | None]  # rows from before it was made have none
    accelerator: NotRequired[str]


class _Signature(TypedDict):
    inputs: list[_Spec]
    outputs: list[_Spec]
    labels: list[str]
    preprocessing: str


class _Verdict(TypedDict):
    place: str
    engine: str
    runs: bool
    reason: str
    latency_s: float | None


class _SelfTest(TypedDict):
    seed: int
    expected: str
    tolerance: int


class _Vector(TypedDict):
    sample: int
    expected: str
    tolerance: int


class _About(TypedDict):
    licence: str
    card: str
    tags: list[tuple[str, str]]
    source: str


def encode_structure(structure: Structure) -> str:
    """Raises: ValueError on a scale that is no finite number."""
    row: _Structure = {
        "operators": [(each.name, each.version, each.count) for each in structure.operators],
        "inputs": [_spec_row(each) for each in structure.inputs],
        "outputs": [_spec_row(each) for each in structure.outputs],
        "macs": structure.macs,
        "weights_bytes": structure.weights_bytes,
        "forecast": _forecast_row(structure.forecast),
        "accelerator": structure.accelerator,
    }
    return _text(row)


def decode_structure(text: str) -> Structure:
    """Read what `encode_structure` wrote."""
    row: _Structure = json.loads(text)
    return Structure(
        operators=tuple(Operator(name, version, count) for name, version, count in row["operators"]),
        inputs=tuple(_spec(each) for each in row["inputs"]),
        outputs=tuple(_spec(each) for each in row["outputs"]),
        macs=row["macs"],
        weights_bytes=row["weights_bytes"],
        forecast=_forecast(row.get("forecast")),
        accelerator=row.get("accelerator", ""),
    )


def encode_signature(signature: Signature) -> str:
    """Raises: ValueError on a scale that is no finite number."""
    row: _Signature = {
        "inputs": [_spec_row(each) for each in signature.inputs],
        "outputs": [_spec_row(each) for each in signature.outputs],
        "labels": list(signature.labels),
        "preprocessing": signature.preprocessing,
    }
    return _text(row)


def decode_signature(text: str) -> Signature:
    """Read what `encode_signature` wrote."""
    row: _Signature = json.loads(text)
    return Signature(
        inputs=tuple(_spec(each) for each in row["inputs"]),
        outputs=tuple(_spec(each) for each in row["outputs"]),
        labels=tuple(row["labels"]),
        preprocessing=row["preprocessing"],
    )


def encode_verdicts(verdicts: tuple[Verdict, ...]) -> str:
    """Raises: ValueError on a latency that is no finite number."""
    rows: list[_Verdict] = [
        {
            "place": each.place.value,
            "engine": each.engine,
            "runs": each.runs,
            "reason": each.reason,
            "latency_s": each.latency_s,
        }
        for each in verdicts
    ]
    return _text(rows)


def decode_verdicts(text: str) -> tuple[Verdict, ...]:
    """Read what `encode_verdicts` wrote."""
    rows: list[_Verdict] = json.loads(text)
    return tuple(
        Verdict(Place(row["place"]), row["engine"], row["runs"], row["reason"], row["latency_s"]) for row in rows
    )


def encode_self_test(self_test: SelfTest | None) -> str | None:
    """None stays None (NULL)."""
    if self_test is None:
        return None
    row: _SelfTest = {
        "seed": self_test.seed,
        "expected": self_test.expected.hex(),
        "tolerance": self_test.tolerance,
    }
    return _text(row)


def decode_self_test(text: str | None) -> SelfTest | None:
    """Read what `encode_self_test` wrote."""
    if text is None:
        return None
    row: _SelfTest = json.loads(text)
    return SelfTest(row["seed"], bytes.fromhex(row["expected"]), row["tolerance"])


def encode_vectors(vectors: tuple[Vector, ...]) -> str | None:
    """No vectors are NULL."""
    rows = [_Vector(sample=each.sample, expected=each.expected.hex(), tolerance=each.tolerance) for each in vectors]
    return _text(rows) if rows else None


def decode_vectors(text: str | None) -> tuple[Vector, ...]:
    """Read what `encode_vectors` wrote."""
    rows: list[_Vector] = json.loads(text or "[]")
    return tuple(Vector(row["sample"], bytes.fromhex(row["expected"]), row["tolerance"]) for row in rows)


def encode_about(about: About) -> str | None:
    """Nothing said is NULL."""
    if about == About():
        return None
    row: _About = {"licence": about.licence, "card": about.card, "tags": list(about.tags), "source": about.source}
    return _text(row)


def decode_about(text: str | None) -> About:
    """Read what `encode_about` wrote."""
    if text is None:
        return About()
    row: _About = json.loads(text)
    tags = tuple((key, value) for key, value in row["tags"])
    return About(row["licence"], row["card"], tags, row["source"])


def _text(row: _Structure | _Signature | list[_Verdict] | _SelfTest | list[_Vector] | _About) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False)


def _forecast_row(forecast: Forecast | None) -> _Forecast | None:
    if forecast is None:
        return None
    return {
        "host_bytes": forecast.host_bytes,
        "cortex_m_bytes": forecast.cortex_m_bytes,
        "cmsis_nn_bytes": forecast.cmsis_nn_bytes,
        "reason": forecast.reason,
        "objections": list(forecast.objections),
    }


def _forecast(row: _Forecast | None) -> Forecast | None:
    if row is None:
        return None
    return Forecast(
        row["host_bytes"], row["cortex_m_bytes"], row["cmsis_nn_bytes"], row["reason"], tuple(row["objections"])
    )


def _spec_row(spec: TensorSpec) -> _Spec:
    quantization = spec.quantization
    return {
        "name": spec.name,
        "dtype": spec.dtype.value,
        "shape": list(spec.shape),
        "quantization": None if quantization is None else (quantization.scale, quantization.zero_point),
    }


def _spec(row: _Spec) -> TensorSpec:
    quantization = row["quantization"]
    return TensorSpec(
        name=row["name"],
        dtype=DType(row["dtype"]),
        shape=tuple(row["shape"]),
        quantization=None if quantization is None else Quantization(*quantization),
    )
